package direct

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Wrap makes a connection that is just made a safe one, such as by TLS; nil leaves it as it
// is. On error the caller closes the connection.
type Wrap func(net.Conn) (net.Conn, error)

const (
	// HelloTimeout is how long a connection may take until it has shown its secret.
	HelloTimeout = 3 * time.Second
	// maxStrangers is how many connections may be at that at a time; others are closed.
	maxStrangers = 32
)

// secretLen is the length of a secret, bytes.
const secretLen = 32

// Secret lets one connection in, once.
type Secret [secretLen]byte

// String is the secret as it travels in messages.
func (s Secret) String() string { return hex.EncodeToString(s[:]) }

// ParseSecret reads what String wrote.
func ParseSecret(text string) (s Secret, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != secretLen {
		return s, errors.New("direct: a secret is 64 hexadecimal digits")
	}
	return Secret(b), nil
}

// greeting begins a hello, before the secret.
const greeting = "mochi ring 1\n"

// proof shows who listens that it knows the secret.
func (s Secret) proof() [sha256.Size]byte {
	return sha256.Sum256(append([]byte("mochi ring, the listener\n"), s[:]...))
}

// Listener takes connections of neighbours that know a secret.
type Listener struct {
	l    net.Listener
	wrap Wrap

	mu       sync.Mutex
	closed   bool
	expected map[Secret]chan net.Conn
	open     map[net.Conn]struct{} // strangers
	all      sync.WaitGroup
}

// Listen listens on HOST:PORT, port 0 for any free one. Close it.
func Listen(address string, wrap Wrap) (*Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the lane direct: %w", err)
	}
	d := &Listener{l: l, wrap: wrap, expected: map[Secret]chan net.Conn{}, open: map[net.Conn]struct{}{}}
	d.all.Go(d.accept)
	return d, nil
}

// Port is the one that it listens on.
func (d *Listener) Port() int { return d.l.Addr().(*net.TCPAddr).Port }

// Expect draws a secret. The connection that shows it comes by the channel. forget says
// that nobody waits for it any more: it is closed if it has come, and refused if it comes.
func (d *Listener) Expect() (s Secret, arrived <-chan net.Conn, forget func()) {
	rand.Read(s[:]) // never fails
	c := make(chan net.Conn, 1)
	d.mu.Lock()
	d.expected[s] = c
	d.mu.Unlock()
	return s, c, func() {
		d.mu.Lock()
		delete(d.expected, s)
		d.mu.Unlock()
		select {
		case conn := <-c:
			conn.Close()
		default:
		}
	}
}

// accept lets strangers say who they are.
func (d *Listener) accept() {
	for {
		conn, err := d.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !d.enter(conn) {
			conn.Close()
			continue
		}
		d.all.Go(func() {
			defer d.leave(conn)
			if err := d.hello(conn); err != nil {
				conn.Close() // a stranger is told nothing
			}
		})
	}
}

func (d *Listener) enter(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.open) >= maxStrangers {
		return false
	}
	d.open[conn] = struct{}{}
	return true
}

func (d *Listener) leave(conn net.Conn) {
	d.mu.Lock()
	delete(d.open, conn)
	d.mu.Unlock()
}

// hello reads who connects, and hands the connection to who expects it.
func (d *Listener) hello(raw net.Conn) error {
	if err := raw.SetDeadline(time.Now().Add(HelloTimeout)); err != nil {
		return err
	}
	conn, err := d.wrap.around(raw)
	if err != nil {
		return err
	}
	var hello [len(greeting) + secretLen]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		return err
	}
	if string(hello[:len(greeting)]) != greeting {
		return errors.New("not a hello")
	}
	secret := Secret(hello[len(greeting):])
	waiting := d.claim(secret)
	if waiting == nil {
		return errors.New("nobody expects this secret")
	}
	proof := secret.proof()
	if _, err := conn.Write(proof[:]); err != nil {
		return err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	waiting <- conn
	return nil
}

// claim takes a secret off those that are expected.
func (d *Listener) claim(secret Secret) (waiting chan net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, c := range d.expected {
		if subtle.ConstantTimeCompare(s[:], secret[:]) == 1 {
			delete(d.expected, s)
			waiting = c
		}
	}
	return waiting
}

// Close ends it; connections that were handed over stay.
func (d *Listener) Close() error {
	err := d.l.Close()
	d.mu.Lock()
	d.closed = true
	for conn := range d.open {
		conn.Close()
	}
	d.mu.Unlock()
	d.all.Wait()
	return err
}

// Dial connects to a listener that expects the secret, until ctx ends.
func Dial(ctx context.Context, address string, secret Secret, wrap Wrap) (_ net.Conn, err error) {
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := raw
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) }) // if it is closed already, all the better
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			raw.Close()
			err = fmt.Errorf("connect to %s: %w", address, err)
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(HelloTimeout)); err != nil {
		return nil, err
	}
	if conn, err = wrap.around(raw); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte(greeting), secret[:]...)); err != nil {
		return nil, err
	}
	var got [sha256.Size]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return nil, fmt.Errorf("it did not answer the hello: %w", err)
	}
	if want := secret.proof(); subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return nil, errors.New("it is not the neighbour that told the secret")
	}
	return conn, raw.SetDeadline(time.Time{})
}

func (w Wrap) around(conn net.Conn) (net.Conn, error) {
	if w == nil {
		return conn, nil
	}
	return w(conn)
}
