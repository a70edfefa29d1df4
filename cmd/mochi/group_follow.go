package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/quorum"
)

const (
	lookEvery  = 100 * time.Millisecond // for another leader
	sayEvery   = time.Second            // to the leader, how this one stands
	fetchPause = 2 * time.Second        // before a checkpoint that did not come is fetched again
)

// link keeps in touch with whoever leads: it says how this coordinator stands, and
// fetches checkpoints.
func (g *group) link(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		m, known := g.node.Leader()
		if known && m.Name != g.self.Name {
			if said != m.Name {
				said = m.Name
				g.progress.Say("%s stands by; %s leads", g.self.Name, m.Name)
			}
			if err := g.with(ctx, m); err != nil && ctx.Err() == nil {
				g.log.Debug("the leader does not answer", "leader", m.Name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// with talks to the coordinator that leads until another one does.
func (g *group) with(ctx context.Context, m quorum.Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bus, err := g.connect(ctx, m)
	if err != nil {
		return err
	}
	defer bus.Drop()
	fetched := make(chan error, 1)
	fetching, trouble := false, ""
	say := time.NewTicker(sayEvery)
	defer say.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	defer func() {
		if fetching {
			cancel()
			if err := <-fetched; err != nil {
				g.log.Debug("a checkpoint was given up", "err", err)
			}
		}
	}()
	for now := true; ; now = false {
		if now {
			if err := g.say(ctx, bus, trouble); err != nil {
				return err
			}
		}
		if c, lacks := g.wanted(); lacks && !fetching {
			fetching = true
			go func() { fetched <- g.fetch(ctx, bus, c) }()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-fetched:
			fetching, trouble = false, ""
			if err != nil && ctx.Err() == nil {
				trouble = err.Error()
				g.log.Warn("a checkpoint was not fetched; it is tried again", "from", m.Name, "err", err)
			}
		case <-look.C:
			if leader, known := g.node.Leader(); known && leader != m {
				return nil
			}
		case <-say.C:
			if err := g.say(ctx, bus, trouble); err != nil {
				return err
			}
		}
	}
}

// connect connects to the coordinator that leads. One that stands still holds up whoever
// connects for seconds: when ctx ends nobody waits for that.
func (g *group) connect(ctx context.Context, m quorum.Member) (*natsbus.Replica, error) {
	type connected struct {
		bus *natsbus.Replica
		err error
	}
	done := make(chan connected)
	o := natsbus.Options{Job: g.name, ID: newID("standby-" + g.self.Name), URL: "nats://" + m.Join, Log: g.quiet()}
	if g.guard != nil {
		o.ID, o.Access = g.guard.ID("standby-"+g.self.Name), g.guard.Peer()
	}
	g.late.Go(func() {
		bus, err := natsbus.ConnectReplica(ctx, o)
		select {
		case done <- connected{bus, err}:
		case <-ctx.Done():
			if err == nil {
				bus.Drop()
			}
		}
	})
	select {
	case c := <-done:
		return c.bus, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// say tells the leader how this coordinator stands, and compares what both were started
// with.
func (g *group) say(ctx context.Context, bus *natsbus.Replica, trouble string) error {
	text, err := g.job.Config.YAML()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	a, err := bus.StandBy(ctx, protocol.StandingBy{
		Name: g.self.Name, Config: string(text), Checkpoint: g.job.Store.Step(), Run: g.ownRun(), Troubled: trouble,
	})
	if err != nil {
		return err
	}
	if a.Config == "" { // its job has not begun
		return nil
	}
	g.mu.Lock()
	first := !g.followed
	g.followed = true
	g.mu.Unlock()
	if !first {
		return nil
	}
	theirs, err := config.Recorded([]byte(a.Config))
	if err != nil {
		return fmt.Errorf("the configuration of %s: %w", a.Leader, err)
	}
	if diff := config.AllDifferences(theirs, g.job.Config); len(diff) > 0 {
		g.end(cli.Usagef("%s leads this job with other settings (its value ≠ the one given here):\n  %s\nstart all coordinators of a group with the same settings", a.Leader, joinLines(diff)))
	}
	if own := g.ownRun(); own > g.node.Settings().Step && g.job.Before != nil {
		g.end(cli.Usagef("%s holds a run up to step %d, and %s leads one of this name that has only %d: give this coordinator a new folder, or stop the group and give the others new folders, so that it begins with this run", g.state, own, a.Leader, g.node.Settings().Step))
	}
	return nil
}

// ownRun is the last step of the run that the folder held before there was a group.
func (g *group) ownRun() int64 {
	if b := g.job.Before; b != nil {
		return max(b.Last.Step, g.job.Store.Step())
	}
	return g.job.Store.Step()
}

// fetch gets a checkpoint from the one that leads.
func (g *group) fetch(ctx context.Context, bus *natsbus.Replica, c quorum.Checkpoint) error {
	err := g.job.Store.Take(c, func(w io.Writer) error { return bus.Fetch(ctx, c.Name, w) })
	if err == nil {
		g.log.Debug("has the checkpoint", "step", c.Step)
		return nil
	}
	if newer, _ := g.wanted(); newer.Step > c.Step { // that one was in its place, or it is gone
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(fetchPause):
	}
	return err
}

// tellStrangers answers where replicas would join if this coordinator led: a line that
// is not NATS's, so that they try the others at once, with how the group stands for
// mochi status.
func (g *group) tellStrangers(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := net.Listen("tcp", g.listen)
		if err == nil && g.guard != nil {
			l = tls.NewListener(l, g.guard.Server(identity.Join, identity.Read, identity.Coordinator))
		}
		if err == nil {
			stop := context.AfterFunc(ctx, func() { l.Close() })
			err = g.answer(l)
			stop()
			l.Close()
		}
		if ctx.Err() == nil {
			g.log.Debug("strangers are not answered", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (g *group) answer(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		state, err := json.Marshal(g.groupState())
		if err == nil {
			err = c.SetDeadline(time.Now().Add(time.Second))
		}
		if err == nil {
			_, err = fmt.Fprintf(c, "%s%s\r\n", natsbus.StandbyLine, state)
		}
		if err = errors.Join(err, c.Close()); err != nil {
			g.log.Debug("a stranger was not answered", "err", err)
		}
	}
}
