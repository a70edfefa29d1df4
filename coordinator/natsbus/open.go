package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// RefusedError says that a coordinator is there, and does not let this process in.
type RefusedError struct{ Why string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Why }

// ServerError says that whoever answers must not be talked to.
type ServerError struct{ Err error }

// Error implements error.
func (e *ServerError) Error() string { return e.Err.Error() }

// Unwrap is the reason.
func (e *ServerError) Unwrap() error { return e.Err }

// quietAfter is how long a coordinator may say nothing in the clear before it is asked
// whether it wants TLS: one that is not secured greets at once.
const quietAfter = 700 * time.Millisecond

const (
	wantsToken = "it lets in only who has its token: give --token-file F, or the variable MOCHI_TOKEN (mochi token show beside the coordinator prints it)"
	badToken   = "it does not take this token: it may have been replaced (mochi token rotate), mistyped, or be one to read with only; take the one that mochi token show prints beside the coordinator"
	notSecured = "it is not secured (--insecure), and there is a token to join with: nothing was told; start it without --insecure, or this process with --insecure"
)

// open makes of a connection one that has been greeted: in TLS where there is a token for
// the address, else in the clear. It waits for the greeting, which it returns.
func open(ctx context.Context, conn net.Conn, access Access, address string) (net.Conn, []byte, error) {
	config, err := access.Client(address)
	if err != nil {
		return nil, nil, &RefusedError{err.Error()}
	}
	over := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var head []byte
	if config == nil {
		head, err = openClear(ctx, conn)
	} else {
		conn, head, err = openTLS(ctx, conn, config)
	}
	if !over() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	return conn, head, err
}

func openTLS(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, []byte, error) {
	secured := tls.Client(conn, config)
	err := secured.HandshakeContext(ctx)
	var head []byte
	if err == nil {
		head, err = greeting(secured)
	}
	var record tls.RecordHeaderError
	var said *net.OpError
	switch {
	case errors.As(err, &record) && string(record.RecordHeader[:5]) == "INFO ":
		err = &ServerError{errors.New(notSecured)}
	case errors.As(err, &said) && said.Op == "remote error":
		err = &RefusedError{badToken}
	}
	return secured, head, err
}

// openClear greets without a token.
func openClear(ctx context.Context, conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(quietAfter)); err != nil {
		return nil, err
	}
	first := make([]byte, 1)
	n, err := conn.Read(first)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		if err = conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, err
		}
		// Nothing of this process is told; what comes back says only that TLS is spoken.
		asked := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		if err := asked.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("it accepts connections and says nothing: %w", err)
		}
		return nil, &RefusedError{wantsToken}
	}
	if n == 0 {
		return nil, fmt.Errorf("wait for its greeting: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	head, err := greeting(prefixed{conn, &first})
	return head, err
}

// prefixed is a connection of which a byte was read.
type prefixed struct {
	net.Conn
	first *[]byte
}

// Read implements net.Conn.
func (p prefixed) Read(b []byte) (int, error) {
	if len(*p.first) > 0 {
		n := copy(b, *p.first)
		*p.first = (*p.first)[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
