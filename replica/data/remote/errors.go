package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ChangedError says that a shard is another than it was when it was indexed. It is no
// fault of a sample: the job cannot go on with it.
type ChangedError struct {
	Name string // of the shard
	What string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s has changed since it was indexed: %s; a job goes on only with the data that it began with", e.Name, e.What)
}

// Error says that a shard cannot be had.
type Error struct {
	Name string // of the shard
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RoomError says that the cache cannot hold what is needed at once.
type RoomError struct {
	Need, Limit int64 // bytes
	For         string
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("the cache may hold %s (--cache-bytes %d), and %s needs %s: raise --cache-bytes", Bytes(e.Limit), e.Limit, e.For, Bytes(e.Need))
}

// failure is why one request brought no bytes, or no more of them.
type failure struct {
	err     error
	final   bool          // asking again is of no use
	stuck   bool          // the server answers, and what it answers is of no use
	wait    time.Duration // the server asks for it; 0: it does not
	missing bool          // there is no such shard
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func final(format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), final: true}
}

// stuck is a failure that a server would repeat for ever.
func stuck(format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), stuck: true}
}

// errStalled is the cause where nothing came for too long.
var errStalled = errors.New("stalled")

// ofStatus is the failure of an answer that is none of 200 and 206. word is S3's, ""
// for none.
func ofStatus(status int, word string, busy bool, wait time.Duration) *failure {
	said := fmt.Sprintf("%d %s", status, http.StatusText(status))
	if word != "" {
		said = fmt.Sprintf("%d %s", status, word)
	}
	f := &failure{err: fmt.Errorf("the server answers %s", said), wait: wait, final: !busy}
	switch {
	case busy:
	case status == http.StatusNotFound || status == http.StatusGone:
		f.err, f.missing = fmt.Errorf("there is no such file (%s)", said), true
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		f.err, f.missing = fmt.Errorf("the server does not give it to us (%s): look at the address, and at the keys", said), true
	case word == "AuthorizationHeaderMalformed" || word == "PermanentRedirect" || status == http.StatusMovedPermanently:
		f.err = fmt.Errorf("the bucket is in another region (%s): set AWS_REGION", said)
	}
	return f
}

// ofTransport is the failure of a request that was not answered, or of an answer that
// broke off.
func ofTransport(err error) *failure {
	err = cause(err)
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	var refused *redirectError
	switch {
	case errors.As(err, &refused):
		return final("%w", refused)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return final("the server does not speak TLS there: is it http://?")
	case errors.As(err, &host):
		return final("its certificate is for another host: %w", host)
	case errors.As(err, &unknown):
		return final("its certificate is of an authority that this machine does not know: name that one's file in SSL_CERT_FILE, if you trust it")
	case errors.As(err, &invalid), errors.As(err, &verify):
		return final("its certificate does not count: %w", err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return &failure{err: fmt.Errorf("there is no host %s", dns.Name)}
	}
	return &failure{err: err}
}

// redirectError says why a redirection is not followed.
type redirectError struct{ why string }

func (e *redirectError) Error() string { return e.why }

// Bytes is a number of bytes as people read it.
func Bytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}
