package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/run"
	"mochi/coordinator"
	"mochi/coordinator/gossip"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/model/optim"
)

// serverParts is what a coordinator is wired from.
type serverParts struct {
	job  *run.Job
	name string // of the job
	nats *natsbus.Server
	data protocol.Data // Kind "": the first replica's
	log  *slog.Logger

	cpu func() time.Duration // what the coordinator has used; nil where replicas share its process

	rebuild bool // --log rebuild

	limits coordinator.Limits // zero fields take their default

	guard    *guard   // nil: everybody may come,
	insecure bool     // and over a network
	gossip   endpoint // IP address and port to listen on; no host = no gossip: all replicas are in this process

	// Of a coordinator that leads a group; else nil.
	bus     *natsbus.Coordinator                        // connected already
	commits coordinator.Log                             // instead of the job's own
	status  func(s protocol.Status) protocol.Status     // adds what it knows of the group
	others  []string                                    // addresses of all that may lead
	copied  func(ctx context.Context, step int64) error // as of coordinator.Config
}

// server is a coordinator and what it stands on.
type server struct {
	*coordinator.Server
	bus    *natsbus.Coordinator
	given  bool // the bus is the caller's, who closes it
	gossip *gossip.Member
	hints  chan coordinator.Hint

	serving chan struct{} // closed when replicas are heard
}

// heard is a coordinator's bus that says when it receives: what a replica of
// the same process sends earlier would be lost, and sent again much later.
type heard struct {
	*natsbus.Coordinator
	serving chan struct{}
	status  func(s protocol.Status) protocol.Status // nil: nothing is added
	open    bool                                    // everybody may come
}

func (h heard) Serve(status func() protocol.Status,
	wants func(from string, step int64) error,
	save func(ctx context.Context, from string, step int64, r io.Reader) error,
	open func(name string) (io.ReadSeekCloser, error),
) error {
	told := func() protocol.Status {
		s := status()
		if s.Insecure = h.open; h.status != nil {
			s = h.status(s)
		}
		return s
	}
	err := h.Coordinator.Serve(told, wants, save, open)
	if err == nil {
		close(h.serving)
	}
	return err
}

func newServer(ctx context.Context, p serverParts) (*server, error) {
	s := &server{serving: make(chan struct{}), given: p.bus != nil}
	var err error
	if p.job.Former != "" {
		if err := takeOver(ctx, p); err != nil {
			return nil, err
		}
	}
	if s.bus = p.bus; s.bus == nil {
		if s.bus, err = natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: p.name, Server: p.nats, Log: p.log}); err != nil {
			return nil, err
		}
	}
	cfg := coordinator.Config{
		Job: p.name, Binary: engines.BuildIdentity(), Training: p.job.Config, ConfigDigest: p.job.Config.Digest(), Data: p.data,
		LR: optim.Schedule{
			Name: p.job.Config.Schedule, Base: p.job.Config.LR, Epochs: p.job.Config.Epochs, Warmup: p.job.Config.LRWarmup,
		}.LR,
		Bus: heard{s.bus, s.serving, p.status, p.insecure}, Checkpoints: p.job.Store, Observer: p.job.Recorder, Recorded: p.job.Recorded(), Rebuild: p.rebuild, Key: p.guard.commitKey(), Afresh: p.job.Afresh, Logger: p.log, Limits: p.limits, CPU: p.cpu, Coordinators: p.others, Copied: p.copied,
	}
	if cfg.Log = p.commits; cfg.Log == nil {
		cfg.Log = p.job.Log // in the run's folder, whose lock makes this process its only coordinator
	}
	old, err := cfg.Log.Data(ctx) // of an earlier coordinator
	if err == nil {
		p.job.Recorder.Know(old)
	}
	if err != nil {
		s.bus.Close()
		return nil, err
	}
	if p.gossip.Host != "" {
		s.startGossip(p, &cfg)
	}
	s.Server = coordinator.New(cfg)
	return s, nil
}

// startGossip begins to take hints. They are no more than that: without them
// losses are noticed by connections and by silence.
func (s *server) startGossip(p serverParts, cfg *coordinator.Config) {
	m, err := gossip.Start(gossip.Config{Name: newID("coordinator"), Bind: p.gossip.Host, Port: p.gossip.Port, Key: p.guard.gossipKey(), Label: p.name, Log: p.log})
	if err != nil {
		p.log.Warn("no gossip; losses are noticed by other means", "err", err)
		return
	}
	s.gossip, s.hints = m, make(chan coordinator.Hint)
	cfg.Hints, cfg.Gossip = s.hints, []string{m.Addr()}
}

// Run runs the coordinator until the job is over and closes what it stands on.
func (s *server) Run(ctx context.Context) error {
	if !s.given {
		defer s.bus.Close()
	}
	if s.gossip == nil {
		return s.Server.Run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return s.Server.Run(ctx)
	})
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case h, open := <-s.gossip.Events():
				if !open {
					return nil
				}
				select {
				case s.hints <- coordinator.Hint{ID: h.Name, Dead: h.State == gossip.Dead}:
				case <-ctx.Done():
					return nil
				}
			}
		}
	})
	err := group.Wait()
	s.gossip.Shutdown()
	return err
}

// gossipEndpoint is where to gossip: on the address given, or the one that the server
// listens on, or all of them.
func gossipEndpoint(given endpoint, listen string) endpoint {
	if given.Host == "" {
		given.Host, _, _ = net.SplitHostPort(listen) // its form was checked
	}
	if given.Host == "" {
		given.Host = "0.0.0.0"
	}
	if net.ParseIP(given.Host) == nil {
		// A name that cannot be found is told of when the gossip starts.
		ctx, cancel := context.WithTimeout(context.Background(), lookupLimit)
		defer cancel()
		if all, err := net.DefaultResolver.LookupHost(ctx, given.Host); err == nil && len(all) > 0 {
			given.Host = all[0]
		}
	}
	return given
}
