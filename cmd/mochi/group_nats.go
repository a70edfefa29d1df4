package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/run"
	"mochi/coordinator"
	"mochi/coordinator/jetstream"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// natsPlace is a NATS cluster that a job's coordinators use (--nats).
type natsPlace struct {
	where *natsbus.Addresses
	text  string // as it was given
}

// natsOf reads --nats and --nats-creds.
func natsOf(f *cli.Faults, text, creds string) *natsPlace {
	where, err := natsbus.NewAddresses(text, "")
	if err != nil {
		f.Add("nats", "%v", err)
	}
	useCredentials(f, where, creds)
	return &natsPlace{where, text}
}

// natsWait is how long a coordinator waits for the NATS servers when it starts; later it
// waits for ever.
const natsWait = 10 * time.Second

// natsLog is the log of coordinators that use a NATS cluster. Messages go through it too,
// so nobody listens here.
type natsLog struct {
	*jetstream.Group
	g    *group
	conn *natsbus.Coordinator // of the log
}

// overNATS joins the others.
func (g *group) overNATS(ctx context.Context) (groupLog, error) {
	if err := g.markNATS(); err != nil {
		return nil, err
	}
	conn, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: g.name, Addresses: g.nats.where, Wait: natsWait, Log: g.log})
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, 3*natsWait) // its servers may be electing
	defer cancel()
	log, said, err := jetstream.Join(within, jetstream.Options{
		Job: g.name, Name: g.self.Name, Conn: conn.Conn(), Follow: g, Files: []string{run.LogFile, run.SamplesFile}, Log: g.log,
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	for _, text := range said {
		g.progress.Say("NATS: %s", text)
	}
	host, err := natsring.AdvertiseHost(conn.RemoteAddr()) // which faces the NATS servers
	if err != nil {
		host = "0.0.0.0"
	}
	g.gossip = gossipEndpoint(g.gossip, net.JoinHostPort(host, "0"))
	return &natsLog{log, g, conn}, nil
}

func (c *natsLog) Close() error {
	c.Group.Close()
	c.conn.Close()
	return nil
}

func (c *natsLog) Lead(ctx context.Context) (leadership, error) {
	l, err := c.Group.Lead(ctx)
	if err != nil {
		return nil, err
	}
	return natsLead{l, c.g}, nil
}

// natsLead knows, besides, who stands by.
type natsLead struct {
	*jetstream.Leadership
	g *group
}

// copyLimit is how long a checkpoint is waited for that nobody who stands by gets.
const copyLimit = 10 * time.Minute

// Copied returns when one of those that stand by, if any are here, holds the checkpoint
// of a step, or a later one: this machine may be lost with its disk.
func (l natsLead) Copied(ctx context.Context, step int64) error {
	for since := time.Now(); ; {
		here := false
		for _, h := range l.g.heard.all() {
			if h.here() && h.Checkpoint >= step {
				return nil
			}
			here = here || h.here()
		}
		switch {
		case isDone(l):
			return fmt.Errorf("the checkpoint of step %d: %w", step, coordinator.ErrFenced)
		case !here:
			return nil // the next one that comes fetches it
		case time.Since(since) >= copyLimit:
			return fmt.Errorf("no coordinator that stands by has got the checkpoint of step %d within %v; the log of each says why", step, copyLimit)
		case !sleep(ctx, lookEvery):
			return ctx.Err()
		}
	}
}

func (c *natsLog) Other() (string, bool) {
	s := c.Standing()
	return s.Leader, s.Leader != "" && !s.Here
}

func (c *natsLog) Link(ctx context.Context, _ string) (*natsbus.Replica, error) {
	return natsbus.ConnectReplica(ctx, natsbus.Options{Job: c.g.name, ID: newID("standby-" + c.g.self.Name), Addresses: c.g.nats.where, Log: c.g.quiet()})
}

func (c *natsLog) Serve(ctx context.Context) (*natsbus.Coordinator, *natsbus.Server, error) {
	bus, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: c.g.name, Addresses: c.g.nats.where, Wait: natsWait, Log: c.g.log})
	return bus, nil, err
}

func (c *natsLog) Logged() (string, int64) {
	s := c.Settings()
	return s.Config, s.Step
}

// Strangers implements groupLog: nobody joins here.
func (c *natsLog) Strangers(context.Context) {}

// Missing implements groupLog: how many there will be is not known.
func (c *natsLog) Missing() []string { return nil }

// Behind implements groupLog: the log is there when this one has gone.
func (c *natsLog) Behind() bool { return false }

// State is how the group stands, as this coordinator sees it.
func (c *natsLog) State() *protocol.GroupState {
	s := c.Standing()
	state := &protocol.GroupState{Leader: s.Leader, Trouble: s.Trouble}
	if !s.Since.IsZero() {
		state.Since = s.Since.UTC().Format(time.RFC3339)
	}
	own := protocol.MemberState{Name: c.g.self.Name, State: "standby", Step: s.Step, Checkpoint: c.g.job.Store.Step()}
	if s.Here {
		own.State = "leader"
	}
	state.Members = append(state.Members, own)
	for name, h := range c.g.heard.all() {
		m := protocol.MemberState{
			Name: name, State: "standby", Heard: h.at.UTC().Format(time.RFC3339), Step: s.Step, Checkpoint: h.Checkpoint, Trouble: h.Troubled,
		}
		if !h.here() {
			m.State = "away"
		}
		state.Members = append(state.Members, m)
	}
	slices.SortFunc(state.Members, func(a, b protocol.MemberState) int { return strings.Compare(a.Name, b.Name) })
	return state
}

// natsMark is what a RUN folder has whose log is in a NATS cluster.
func natsMark(path string) string { return filepath.Join(run.Group(path), "nats") }

// markNATS notes that the log of this folder's run is elsewhere.
func (g *group) markNATS() error {
	mark := natsMark(g.state)
	entries, err := os.ReadDir(run.Group(g.state))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(mark); err != nil {
			return cli.Usagef("%s is that of a coordinator that stands by with others (--standby), whose log is in it: start it so, or give --nats a new folder, and --resume a checkpoint of that run", g.state)
		}
		return nil
	}
	if err := os.MkdirAll(run.Group(g.state), 0o755); err != nil {
		return err
	}
	return run.WriteFile(mark, fmt.Appendf(nil, "The log of this run is in NATS: stream MOCHI_%s at %s.\n", g.name, g.nats.text))
}

// notNATS says why a folder cannot be used without --nats.
func (g *group) notNATS() error {
	if _, err := os.Stat(natsMark(g.state)); err == nil {
		return cli.Usagef("%s is that of a run whose log is in NATS: start it with --nats, or choose a new folder, and --resume a checkpoint of that run", g.state)
	}
	return nil
}
