package s3_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/replica/data/remote/s3"
)

// What is asked for is signed with the keys that the environment, or the file of keys,
// has; in the region that it says; and not at all where there are none.
func TestEnvironment(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(keys, []byte("[default]\naws_access_key_id = FILE\naws_secret_access_key = y\n[lab]\naws_access_key_id = LAB\naws_secret_access_key = z\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		env            map[string]string
		signed, header string // of Authorization; a header that must be there
		anonymous      bool
	}{
		{"environment", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SHARED_CREDENTIALS_FILE": keys}, "Credential=ENV/", "", false},
		{"region", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-north-1"}, "/eu-north-1/s3/", "", false},
		{"the other name of the region", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-north-2"}, "/eu-north-2/s3/", "", false},
		{"session", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "tok"}, "Credential=ENV/", "tok", false},
		{"file", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": keys}, "Credential=FILE/", "", false},
		{"profile", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": keys, "AWS_PROFILE": "lab"}, "Credential=LAB/", "", false},
		{"none", nil, "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked *http.Request
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				w.Header().Set("Content-Range", "bytes 5-7/100")
				w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
				w.WriteHeader(http.StatusPartialContent)
				io.WriteString(w, "abc")
			}))
			defer server.Close()
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3",
				"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				t.Setenv(name, "")
			}
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
			t.Setenv("AWS_ENDPOINT_URL", "http://other.invalid")
			t.Setenv("AWS_ENDPOINT_URL_S3", server.URL) // wins
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			client, err := s3.New(http.DefaultTransport)
			if err != nil {
				t.Fatal(err)
			}
			body, header, err := client.Get(t.Context(), "bucket", "a/b c.tar", 5, 8)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			content, err := io.ReadAll(body)
			if err != nil || string(content) != "abc" || header.Get("Content-Range") != "bytes 5-7/100" {
				t.Errorf("%q, %v, %v", content, header, err)
			}
			if asked.URL.Path != "/bucket/a/b c.tar" || asked.Header.Get("Range") != "bytes=5-7" {
				t.Errorf("asked for %s, %s", asked.URL, asked.Header.Get("Range"))
			}
			if got := asked.Header.Get("Authorization"); c.anonymous && got != "" || !strings.Contains(got, c.signed) {
				t.Errorf("signed by %q, want %q", got, c.signed)
			}
			if client.Anonymous() != c.anonymous || asked.Header.Get("X-Amz-Security-Token") != c.header {
				t.Errorf("anonymous %v, session %q", client.Anonymous(), asked.Header.Get("X-Amz-Security-Token"))
			}
		})
	}
}

// What a server refuses is told by its word, with what it asks for; it is asked once.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		code   string
		busy   bool
	}{
		{503, `<Error><Code>SlowDown</Code><Message>m</Message></Error>`, "SlowDown", true},
		{500, `<Error><Code>InternalError</Code></Error>`, "InternalError", true},
		{400, `<Error><Code>RequestTimeout</Code></Error>`, "RequestTimeout", true},
		{404, `<Error><Code>NoSuchKey</Code></Error>`, "NoSuchKey", false},
		{403, `<Error><Code>AccessDenied</Code></Error>`, "AccessDenied", false},
		{502, `<html>no XML`, "", true},
		{416, `<Error><Code>InvalidRange</Code></Error>`, "InvalidRange", false},
	} {
		requests := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.Header().Set("Retry-After", "7")
			w.Header().Set("Content-Range", "bytes */9")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
		t.Setenv("AWS_ACCESS_KEY_ID", "k")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
		client, err := s3.New(http.DefaultTransport)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = client.Get(t.Context(), "bucket", "k.tar", 0, 1)
		var said *s3.Error
		if !errors.As(err, &said) || said.Status != c.status || c.code != "" && said.Code != c.code || said.Busy() != c.busy || said.RetryAfter != "7" || said.Range != "bytes */9" || requests != 1 {
			t.Errorf("%d %s: %+v (%v), %d requests", c.status, c.body, said, err, requests)
		}
		server.Close()
	}
}
