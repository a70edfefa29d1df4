// Package relay is a bad network in user space: a TCP relay whose conditions
// are set while it runs. It stands between a program and an address that the
// program was given, and needs neither root nor a kernel with netem.
//
// What it does is what a program sees of a network through TCP: bytes are never
// lost, changed or out of order. A lost packet is a stall of the time that TCP
// takes to notice (Stall); a cut holds back what is sent in one direction, the
// end of a connection included, until it is healed.
package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Stall is how long a lost packet holds a connection up: the least time after
// which Linux sends again.
const Stall = 200 * time.Millisecond

// Conditions are those of a relay's connections, each of them by itself. The
// zero value is a good network.
type Conditions struct {
	Delay          time.Duration // each way
	Loss           float64       // of chunks of up to 16 KiB, 0…1: each costs a Stall
	BytesPerSecond int64         // each way and connection; 0 = as fast as it goes
	CutUp          bool          // nothing comes from those who connect to the target
	CutDown        bool          // nothing comes back
}

// Relay accepts connections and passes them on to its target. It owns them;
// Close ends them.
type Relay struct {
	listener net.Listener
	target   string
	link     *link
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// Listen starts a relay at an address, such as 127.0.0.1:0, to a target, with
// good conditions. The seed draws what is lost.
func Listen(address, target string, seed uint64) (*Relay, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Relay{listener: l, target: target, link: newLink(seed), cancel: cancel}
	r.wg.Go(func() { r.accept(ctx) })
	return r, nil
}

// Addr is where it listens, HOST:PORT.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Set changes the conditions of connections that are open and of those to come.
func (r *Relay) Set(c Conditions) { r.link.set(c) }

// Close ends all connections and waits until they have ended.
func (r *Relay) Close() error {
	r.cancel()
	err := r.listener.Close()
	r.wg.Wait()
	return err
}

func (r *Relay) accept(ctx context.Context) {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Out of files, or a client that was gone at once: the next may do.
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		r.wg.Go(func() { r.serve(ctx, client) })
	}
}

// serve passes one connection on until both directions have ended, one has
// failed, or the relay is closed.
func (r *Relay) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", r.target)
	if err != nil {
		return // the client sees its connection closed, as with a port that nobody listens on
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { // unblocks reads and writes
		client.Close()
		server.Close()
	})
	defer stop()
	var both sync.WaitGroup
	for _, way := range []struct {
		to, from net.Conn
		up       bool
	}{{server, client, true}, {client, server, false}} {
		both.Go(func() {
			if err := r.link.pass(ctx, way.to, way.from, way.up); err != nil {
				cancel()
				return
			}
			if c, ok := way.to.(*net.TCPConn); !ok || c.CloseWrite() != nil {
				cancel()
			}
		})
	}
	both.Wait()
}

// chunk is what was read at once, and when.
type chunk struct {
	bytes []byte
	at    time.Time
}

// read sends what comes from a reader until its end or an error, and closes the
// channel. The error is nil at the end of the stream.
func read(ctx context.Context, from io.Reader, out chan<- chunk) error {
	defer close(out)
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if n > 0 {
			select {
			case out <- chunk{b[:n], time.Now()}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
