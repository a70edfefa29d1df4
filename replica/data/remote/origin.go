package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mochi/replica/data/remote/s3"
)

// maxRedirects is how many redirections of one request are followed.
const maxRedirects = 5

// reply is an answer that has bytes.
type reply struct {
	body   io.ReadCloser
	whole  bool  // of the whole shard, though a part was asked for
	from   int64 // where it begins
	length int64 // of the body, −1 where that is not said
	meta   meta
}

// meta is what a server says of a shard.
type meta struct {
	size    int64
	version string // ETag or Last-Modified, "" for neither
}

// origin asks servers.
type origin struct {
	http *http.Client
	s3   func() (*s3.Client, error) // made once, and only if it is needed
	now  func() time.Time
}

// newTransport is the transport of requests. It speaks HTTP/1.1 alone: parts of shards
// come faster over connections of their own than over one.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.DisableCompression = true // positions are those of what is stored
	t.MaxIdleConnsPerHost = 64
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

// noDowngrade follows some redirections, and none out of TLS.
func noDowngrade(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return &redirectError{fmt.Sprintf("it was redirected %d times, and there would be no end", maxRedirects)}
	}
	if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return &redirectError{"the server redirects from https to " + r.URL.Scheme + ", where anybody may read and change it"}
	}
	return nil
}

// get asks for bytes from, to to (not included), of a shard. The error is a *failure.
func (o *origin) get(ctx context.Context, l location, from, to int64) (*reply, error) {
	if l.scheme == "s3" {
		return o.getS3(ctx, l, from, to)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url(), nil)
	if err != nil {
		return nil, final("the address cannot be asked for: %w", cause(err))
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "mochi")
	resp, err := o.http.Do(r)
	if err != nil {
		return nil, ofTransport(err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return answer(resp.Body, resp.StatusCode == http.StatusOK, resp.Header, from)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return past(resp.Header.Get("Content-Range"))
	}
	s := resp.StatusCode
	busy := s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported ||
		s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly
	return nil, ofStatus(s, "", busy, o.retryAfter(resp.Header.Get("Retry-After")))
}

// getS3 is get of S3.
func (o *origin) getS3(ctx context.Context, l location, from, to int64) (*reply, error) {
	client, err := o.s3()
	if err != nil {
		return nil, final("%w", err)
	}
	key, err := url.PathUnescape(strings.TrimPrefix(l.path, "/"))
	if err != nil {
		key = strings.TrimPrefix(l.path, "/") // a key may have a % of its own
	}
	body, header, err := client.Get(ctx, l.host, key, from, to)
	var said *s3.Error
	switch {
	case errors.As(err, &said) && said.Status == http.StatusRequestedRangeNotSatisfiable:
		return past(said.Range)
	case errors.As(err, &said):
		f := ofStatus(said.Status, said.Code, said.Busy(), o.retryAfter(said.RetryAfter))
		if f.missing && said.Code != "NoSuchKey" && client.Anonymous() {
			f.err = fmt.Errorf("%w; no keys were found, so it was asked for anonymously", f.err)
		}
		return nil, f
	case err != nil:
		return nil, ofTransport(err)
	}
	return answer(body, header.Get("Content-Range") == "", header, from)
}

// past is the answer to a request behind the end: the shard is empty, or shorter than
// it was.
func past(contentRange string) (*reply, error) {
	total, err := strconv.ParseInt(strings.TrimPrefix(contentRange, "bytes */"), 10, 64)
	if err != nil || total < 0 {
		total = 0 // who says nothing has nothing
	}
	return &reply{body: http.NoBody, meta: meta{size: total}, from: total}, nil
}

// answer reads the head of an answer. The error is a *failure.
func answer(body io.ReadCloser, whole bool, h http.Header, from int64) (*reply, error) {
	r := &reply{body: body, whole: whole, length: -1, meta: meta{size: -1, version: h.Get("ETag")}}
	if r.meta.version == "" {
		r.meta.version = h.Get("Last-Modified")
	}
	refuse := func(f *failure) (*reply, error) {
		body.Close()
		return nil, f
	}
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return refuse(final("the server packs what it sends (%.40q), so that no part can be asked for: have it send the files as they are", e))
	}
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		r.length = n
	}
	if whole {
		if r.meta.size = r.length; r.length < 0 {
			return refuse(final("the server does not say how long it is"))
		}
		return r, nil
	}
	first, last, total, ok := contentRange(h.Get("Content-Range"))
	switch {
	case !ok:
		return refuse(stuck("the server answers with a part, and its Content-Range is %.60q", h.Get("Content-Range")))
	case first != from:
		return refuse(stuck("bytes from %d on were asked for, and the server answers with those from %d on", from, first))
	case r.length >= 0 && r.length != last-first+1:
		return refuse(stuck("the server says that it sends bytes %d to %d, and that these are %d", first, last, r.length))
	}
	r.from, r.length, r.meta.size = first, last-first+1, total
	return r, nil
}

// contentRange reads bytes FIRST-LAST/TOTAL.
func contentRange(s string) (first, last, total int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, false
	}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || s[0] == '+' || s[0] == '-' {
			ok = false
		}
		return n
	}
	first, last, total = number(a), number(b), number(all)
	return first, last, total, ok && first <= last && last < total
}

// retryAfter reads the header of that name: seconds, or a date.
func (o *origin) retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(o.now()))
	}
	return 0
}
