package natsbus

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
)

// Options says which server to connect to, and as whom. Give Server for an
// in-process connection, or Addresses, or URL.
type Options struct {
	Job    string        // job name: part of every subject
	ID     string        // replica id; also the connection's name, by which the server reports its end
	Server *Server       // embedded in this process
	URL    string        // nats://HOST:PORT, or several of which one leads, separated by commas
	Wait   time.Duration // how long to keep trying to connect at first; 0 = one attempt
	Log    *slog.Logger  // default: discard

	// Access is how to come to a coordinator elsewhere; nil: in the clear, to any.
	Access Access

	// Addresses are URL as it may change, and be learned. A connection of its own
	// for each that uses them.
	Addresses *Addresses

	restored func(nc *nats.Conn) // optional: called when a connection was made again
	roots    *x509.CertPool      // of NATS servers' certificates; nil: the system's
	now      func() time.Time    // by which a flood is told from a hurry; nil: time.Now
}

// retryEvery is the pause between attempts to connect and to reconnect.
const retryEvery = 100 * time.Millisecond

func (o Options) validate() (Options, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	switch {
	case !natsserver.IsToken(o.Job):
		return o, fmt.Errorf("job name %q: letters, digits, '-' and '_' only, at least one", o.Job)
	case o.Server != nil || o.Addresses != nil:
		return o, nil
	case o.URL == "":
		return o, errors.New("connect to NATS: neither an embedded server nor a URL is given")
	}
	var err error
	o.Addresses, err = NewAddresses(o.URL, "")
	return o, err
}

// conn is a client's connection, and what makes it again when it breaks.
type conn struct {
	*nats.Conn
	dialer *dialer // nil: to a server of this process
}

// Close ends both.
func (c *conn) Close() {
	c.Conn.Close()
	if c.dialer != nil {
		c.dialer.close()
	}
}

// at says where it leads, for people.
func (c *conn) at() string {
	if c.dialer == nil {
		return "the embedded server"
	}
	return c.dialer.at()
}

// connect opens a connection that reconnects for ever.
func connect(ctx context.Context, o Options, name string, extra ...nats.Option) (*conn, error) {
	c := &conn{}
	opts := append([]nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(retryEvery),
		nats.ReconnectJitter(retryEvery/2, retryEvery/2),
		nats.ReconnectBufSize(1 << 20),
		nats.IgnoreDiscoveredServers(),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(3),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Warn("connection to NATS lost", "conn", name, "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			o.Log.Info("connection to NATS restored", "conn", name, "at", c.at())
			if o.restored != nil {
				o.restored(nc)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Log.Error("NATS", "conn", name, "err", err)
		}),
	}, extra...)
	url, wait := "", o.Wait
	if o.Access != nil {
		opts = append(opts, nats.CustomInboxPrefix(o.Access.Inbox()), nats.IgnoreAuthErrorAbort())
	}
	if o.Server != nil {
		user, password := o.Server.Own()
		opts = append([]nats.Option{nats.InProcessServer(o.Server), nats.UserInfo(user, password)}, opts...)
	} else {
		all := o.Addresses.All()
		if url = "nats://" + all[0]; len(all) > 1 {
			wait = max(wait, callLimit) // one attempt at all of them
		}
		c.dialer = newDialer(o.Addresses, o.Access, o.Log)
		c.dialer.roots = o.roots
		opts = append(opts, nats.SetCustomDialer(c.dialer), nats.SkipHostLookup())
		opts = append(opts, c.dialer.proves()...)
	}
	var err error
	if c.Conn, err = connectWithin(ctx, wait, url, opts, c.final(o)); err != nil {
		if c.dialer == nil {
			return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
		}
		c.dialer.close()
		if errors.Is(err, nats.ErrNoServers) { // NATS's client says no more
			err = c.dialer.failure(err)
		}
		if refused(err) {
			return nil, fmt.Errorf("connect to NATS at %s: %w: %s", strings.Join(o.Addresses.All(), ", "), err, o.Addresses.whoWasRefused())
		}
		if c.dialer.refused() != nil {
			return nil, fmt.Errorf("connect to the coordinator at %s: %w", strings.Join(o.Addresses.All(), ", "), err)
		}
		return nil, fmt.Errorf("connect to NATS at %s: %w; is the coordinator running there, or NATS?", strings.Join(o.Addresses.All(), ", "), err)
	}
	if c.dialer != nil {
		c.dialer.owned.Go(func() { c.dialer.watch(c.Conn) })
	}
	return c, nil
}

// final says after an attempt whether it makes no sense to try again. A coordinator that
// does not let this process in is told of once; it may be one that ends, or the token may
// be yet to come.
func (c *conn) final(o Options) func() bool {
	told := false
	return func() bool {
		if c.dialer == nil {
			return false
		}
		why := c.dialer.refused()
		if why == nil {
			return false
		}
		fixed, ok := o.Access.(interface{ Fixed() bool })
		if ok && fixed.Fixed() {
			return true
		}
		if !told && o.Wait > 0 {
			told = true
			o.Log.Warn("the coordinator does not let this process in yet", "at", c.at(), "why", why)
		}
		return false
	}
}

// connectWithin tries until there is a connection, at least once, or final says that
// there will be none.
func connectWithin(ctx context.Context, wait time.Duration, url string, opts []nats.Option, final func() bool) (*nats.Conn, error) {
	deadline := time.Now().Add(wait)
	for {
		nc, err := nats.Connect(url, opts...)
		if err == nil || refused(err) || !time.Now().Before(deadline) || final() {
			return nc, err
		}
		if ended := pause(ctx, retryEvery); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

const flushTimeout = 2 * time.Second

// flush waits until the server has what was sent.
func flush(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// closeAfterFlush closes a connection after its last messages have left.
func closeAfterFlush(nc *conn, log *slog.Logger) {
	if nc.IsConnected() {
		if err := flush(context.Background(), nc.Conn); err != nil {
			log.Warn("last messages may not have left", "conn", nc.Opts.Name, "err", err)
		}
	}
	nc.Close()
}
