// Package s3 reads from S3 and what speaks like it, with the client of MinIO. Keys,
// region and endpoint come from where everybody's programs look for them: the
// environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL), ~/.aws/credentials with AWS_PROFILE, and what
// a container of Amazon's is given. Without keys it asks anonymously. It shows none of
// them, and writes none down.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Client reads objects. It is safe for concurrent use.
type Client struct {
	core      *minio.Core
	anonymous bool
}

// New makes a client on a transport. Nothing is asked for yet.
func New(transport http.RoundTripper) (*Client, error) {
	endpoint, custom := "https://s3.amazonaws.com", false
	name := ""
	for _, name = range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		if v := os.Getenv(name); v != "" {
			endpoint, custom = v, true
			break
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%s is not of the form https://HOST[:PORT]", name)
	}
	region := os.Getenv("AWS_REGION")
	if region == "" {
		region = os.Getenv("AWS_DEFAULT_REGION")
	}
	if region == "" && custom {
		region = "us-east-1" // what servers other than Amazon's go by
	}
	creds, err := keys()
	if err != nil {
		return nil, err
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: creds, Secure: u.Scheme == "https", Region: region, MaxRetries: 1, Transport: noting{transport},
	})
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	value, err := creds.GetWithContext(core.CredContext())
	if err != nil {
		return nil, fmt.Errorf("s3: its keys: %w", err)
	}
	return &Client{core: core, anonymous: value.AccessKeyID == ""}, nil
}

// keys are the credentials, those of the environment first.
func keys() (*credentials.Credentials, error) {
	id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if (id == "") != (secret == "") {
		return nil, errors.New("s3: of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is set and the other is not: set both, or neither")
	}
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(name) != "" {
			providers = append(providers, &credentials.IAM{})
			break
		}
	}
	return credentials.NewChainCredentials(providers), nil
}

// Anonymous says whether there are no keys.
func (c *Client) Anonymous() bool { return c.anonymous }

// Error says what a server answered.
type Error struct {
	Status     int
	Code       string // S3's word, such as NoSuchKey
	RetryAfter string // the header, "" for none
	Range      string // the header Content-Range, "" for none
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Code, e.Status) }

// Busy says whether it is worth asking again.
func (e *Error) Busy() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout ||
		slices.Contains([]string{"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"}, e.Code)
}

// Get asks for the bytes from, to to (not included) of an object. The error is an
// *Error where the server has answered.
func (c *Client) Get(ctx context.Context, bucket, key string, from, to int64) (io.ReadCloser, http.Header, error) {
	var opts minio.GetObjectOptions
	if err := opts.SetRange(from, to-1); err != nil {
		return nil, nil, fmt.Errorf("s3: bytes %d to %d: %w", from, to, err)
	}
	n := &note{}
	body, _, header, err := c.core.GetObject(context.WithValue(ctx, noteKey{}, n), bucket, key, opts)
	var of minio.ErrorResponse
	if errors.As(err, &of) {
		return nil, nil, &Error{Status: of.StatusCode, Code: of.Code, RetryAfter: n.retryAfter, Range: n.contentRange}
	}
	if err != nil {
		return nil, nil, err
	}
	return body, header, nil
}

// note is what the client does not tell of an answer.
type note struct{ retryAfter, contentRange string }

type noteKey struct{}

// noting is a transport that takes notes.
type noting struct{ http.RoundTripper }

func (t noting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if n, is := r.Context().Value(noteKey{}).(*note); is && err == nil {
		n.retryAfter, n.contentRange = resp.Header.Get("Retry-After"), resp.Header.Get("Content-Range")
	}
	return resp, err
}
