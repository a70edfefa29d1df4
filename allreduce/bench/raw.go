package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// rawRing is one rank's end of a ring of plain TCP connections.
type rawRing struct {
	world    int
	listener net.Listener
	from, to net.Conn
	buffer   []byte // what is sent, and overwritten by what comes
	in       []byte
}

// rawChunk is how much one system call moves.
const rawChunk = 1 << 18

// newRawRing listens; connect completes the ring.
func newRawRing(world int, listen string) (*rawRing, error) {
	r := &rawRing{world: world, buffer: make([]byte, rawChunk), in: make([]byte, rawChunk)}
	if world == 1 {
		return r, nil
	}
	var err error
	r.listener, err = net.Listen("tcp", listen)
	return r, err
}

func (r *rawRing) address() string {
	if r.listener == nil {
		return ""
	}
	return r.listener.Addr().String()
}

// connect dials the successor and accepts the predecessor.
func (r *rawRing) connect(ctx context.Context, successor string) error {
	if r.world == 1 {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { r.listener.Close() })
	defer stop()
	var d net.Dialer
	var err error
	if r.to, err = d.DialContext(ctx, "tcp", successor); err != nil {
		return fmt.Errorf("plain TCP ring: %w", err)
	}
	if r.from, err = r.listener.Accept(); err != nil {
		return fmt.Errorf("plain TCP ring: %w", err)
	}
	return nil
}

// move sends and receives, at once, the bytes that one all-reduce puts on this
// rank's links.
func (r *rawRing) move(ctx context.Context, o Options) (time.Duration, error) {
	if r.world == 1 {
		return 0, nil
	}
	total := o.Bytes / 4 * o.Wire.Size() * 2 * (r.world - 1) / r.world
	stop := context.AfterFunc(ctx, func() { r.close() })
	defer stop()
	start := time.Now()
	sent := make(chan error, 1)
	go func() {
		var err error
		for left := total; left > 0 && err == nil; left -= rawChunk {
			_, err = r.to.Write(r.buffer[:min(left, rawChunk)])
		}
		sent <- err
	}()
	var err error
	for left := total; left > 0 && err == nil; left -= rawChunk {
		_, err = io.ReadFull(r.from, r.in[:min(left, rawChunk)])
	}
	if err != nil {
		r.close() // releases the writer
	}
	if err := errors.Join(err, <-sent); err != nil {
		return 0, fmt.Errorf("plain TCP ring: %w", err)
	}
	return time.Since(start), nil
}

func (r *rawRing) close() {
	if r.listener != nil {
		r.listener.Close()
	}
	for _, c := range []net.Conn{r.from, r.to} {
		if c != nil {
			c.Close()
		}
	}
}
