package natsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
)

// Options says which server to connect to, and as whom. Give Server for an
// in-process connection, or URL.
type Options struct {
	Job    string        // job name: part of every subject
	ID     string        // replica id; also the connection's name, by which the server reports its end
	Server *Server       // embedded in this process
	URL    string        // nats://HOST:PORT
	Wait   time.Duration // how long to keep trying to connect at first; 0 = one attempt
	Log    *slog.Logger  // default: discard
}

// retryEvery is the pause between attempts to connect and to reconnect.
const retryEvery = 100 * time.Millisecond

func (o Options) validate() (Options, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case !natsserver.IsToken(o.Job):
		return o, fmt.Errorf("job name %q: letters, digits, '-' and '_' only, at least one", o.Job)
	case o.Server == nil && o.URL == "":
		return o, errors.New("connect to NATS: neither an embedded server nor a URL is given")
	}
	return o, nil
}

// connect opens a connection that reconnects for ever.
func connect(ctx context.Context, o Options, name string, extra ...nats.Option) (*nats.Conn, error) {
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
			o.Log.Info("connection to NATS restored", "conn", name, "url", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			o.Log.Error("NATS", "conn", name, "err", err)
		}),
	}, extra...)
	where := o.URL
	if o.Server != nil {
		opts = append(opts, nats.InProcessServer(o.Server))
		where = "the embedded server"
	}
	deadline := time.Now().Add(o.Wait)
	for {
		nc, err := nats.Connect(o.URL, opts...)
		if err == nil {
			return nc, nil
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("connect to NATS at %s: %w; is the coordinator running there?", where, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryEvery):
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
func closeAfterFlush(nc *nats.Conn, log *slog.Logger) {
	if nc.IsConnected() {
		if err := flush(context.Background(), nc); err != nil {
			log.Warn("last messages may not have left", "conn", nc.Opts.Name, "err", err)
		}
	}
	nc.Close()
}
