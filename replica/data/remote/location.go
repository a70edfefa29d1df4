package remote

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"mochi/replica/data/shards"
)

// location is where a shard is.
type location struct {
	scheme string // http, https, s3
	host   string // of s3: the bucket
	path   string // with its first slash, as it is written; of s3: the key behind a slash
	query  string // may be a secret: for requests alone
}

// String is the location for people: without what may be a secret.
func (l location) String() string { return l.scheme + "://" + l.host + l.path }

// base is the last part of its path.
func (l location) base() string { return path.Base(l.path) }

// sibling is the location of another file beside it.
func (l location) sibling(base string) location {
	l.path = path.Dir(l.path) + "/" + base
	l.path = strings.Replace(l.path, "//", "/", 1)
	return l
}

// url is what is asked for.
func (l location) url() string {
	u := l.String()
	if l.query != "" {
		u += "?" + l.query
	}
	return u
}

var hasScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

// Is says whether a data path is a URL.
func Is(path string) bool { return hasScheme.MatchString(path) }

// Shown is a URL, or a pattern of such, as it may be shown: without user, password and
// what stands behind a question mark.
func Shown(pattern string) string {
	scheme, rest, _ := strings.Cut(pattern, "://")
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	host, tail, slash := strings.Cut(rest, "/")
	host = host[strings.LastIndex(host, "@")+1:]
	if slash {
		tail = "/" + tail
	}
	return strings.ToLower(scheme) + "://" + host + tail
}

// words is what there is to say against a pattern that cannot be read.
func words(shown, format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{shown}, args...)...)
}

// parse takes a pattern apart. Braces may be in the path alone.
func parse(pattern string) (location, error) {
	shown := Shown(pattern)
	scheme, rest, _ := strings.Cut(pattern, "://")
	l := location{scheme: strings.ToLower(scheme)}
	switch l.scheme {
	case "http", "https", "s3":
	case "gs", "gcs":
		return l, words(shown, "data are read from http, https and s3; Google's storage is read as s3://BUCKET/… with AWS_ENDPOINT_URL=https://storage.googleapis.com and HMAC keys")
	default:
		return l, words(shown, "data are read from http, https and s3, not from %s", l.scheme)
	}
	if strings.Contains(rest, "#") {
		return l, words(shown, "a # and what follows is no part of a file's address: write %%23 if it is one of its name")
	}
	rest, l.query, _ = strings.Cut(rest, "?")
	var slash bool
	l.host, l.path, slash = strings.Cut(rest, "/")
	l.path = "/" + l.path
	switch {
	case strings.Contains(l.host, "@"):
		return l, words(shown, "a user or password in the address would be seen by others (in lists of processes, in logs): take it out; s3 takes its keys from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or ~/.aws/credentials")
	case l.host == "" || strings.ContainsAny(l.host, "{}*"):
		return l, words(shown, "names no %s", map[bool]string{true: "bucket", false: "host"}[l.scheme == "s3"])
	case l.scheme == "s3" && l.query != "":
		return l, words(shown, "s3 addresses have nothing behind a question mark")
	case !slash || !strings.HasSuffix(l.path, shards.Suffix):
		return l, words(shown, "want shards, 'PREFIX-{000..146}.tar' (no folders, and nothing packed: .tar.gz allows no access at random)")
	case strings.ContainsAny(l.path, "*?["):
		return l, words(shown, "a server cannot be asked for *, ? and []: name the shards, as {000..146} or {a,b}")
	}
	if l.scheme != "s3" {
		sample, err := shards.Braces(l.path)
		if err != nil {
			sample = []string{l.path}
		}
		if u, err := url.Parse(l.scheme + "://" + l.host + sample[0]); err != nil || u.Host == "" {
			return l, words(shown, "is no address: %v", cause(err))
		}
	}
	return l, nil
}

// cause is an error of net/url and net/http without the address, which may hold a
// secret.
func cause(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
