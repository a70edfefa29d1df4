package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// callLimit is how long a coordinator may take from the first packet to its
// greeting: a stopped process is reached by its system, and says nothing.
const callLimit = 3 * time.Second

// maxGreeting bounds what is read of somebody who may be no NATS server.
const maxGreeting = 64 << 10

// line is a connection to a NATS server that has said INFO, which only a
// coordinator that leads does. It notes when something was heard last.
type line struct {
	net.Conn
	address string
	head    []byte // read already: the greeting
	began   time.Time
	heard   atomic.Int64 // ns since began
	closed  atomic.Bool
}

// Read implements net.Conn. It has one caller at a time.
func (l *line) Read(p []byte) (n int, err error) {
	if len(l.head) > 0 {
		n = copy(p, l.head)
		l.head = l.head[n:]
	} else {
		n, err = l.Conn.Read(p)
	}
	if n > 0 {
		l.heard.Store(int64(time.Since(l.began)))
	}
	return n, err
}

// Close implements net.Conn.
func (l *line) Close() error {
	l.closed.Store(true)
	return l.Conn.Close()
}

// quiet is how long nothing was heard.
func (l *line) quiet() time.Duration {
	return time.Since(l.began) - time.Duration(l.heard.Load())
}

// call connects and waits for the greeting.
func (d *dialer) call(ctx context.Context, address string) (*line, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callLimit, errors.New("it accepts connections and says nothing"))
	defer cancel()
	var plain net.Dialer
	conn, err := plain.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if d.access != nil {
		opened, head, err := open(ctx, conn, d.access, address)
		if err != nil {
			_ = conn.Close() // nothing was sent
			return nil, err
		}
		return &line{Conn: opened, address: address, head: head, began: time.Now()}, nil
	}
	over := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	head, err := greeting(conn)
	if !over() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	return &line{Conn: conn, address: address, head: head, began: time.Now()}, nil
}

// greeting reads what a NATS server says first: INFO and a JSON object, on a line.
func greeting(conn net.Conn) ([]byte, error) {
	word := []byte("INFO ")
	var head []byte
	for piece := make([]byte, 4096); ; {
		n, err := conn.Read(piece)
		head = append(head, piece[:n]...)
		if m := min(len(head), len(word)); !bytes.EqualFold(head[:m], word[:m]) {
			return nil, errors.New("it is no NATS server")
		}
		if end := bytes.IndexByte(head, '\n'); end >= 0 {
			var info struct {
				ID string `json:"server_id"`
			}
			if jerr := json.Unmarshal(head[len(word):end], &info); jerr != nil || info.ID == "" {
				return nil, errors.New("it is no NATS server: its greeting has no server_id")
			}
			return head, nil
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("wait for its greeting: %w", err)
		case len(head) > maxGreeting:
			return nil, errors.New("it is no NATS server: its greeting does not end")
		}
	}
}
