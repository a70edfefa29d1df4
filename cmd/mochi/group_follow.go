package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/follow"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
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
		if leader, known := g.node.Other(); known {
			if said != leader {
				said = leader
				g.progress.Say("%s stands by; %s leads", g.self.Name, leader)
			}
			if err := g.with(ctx, leader); err != nil && ctx.Err() == nil {
				g.log.Debug("the leader does not answer", "leader", leader, "err", err)
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
func (g *group) with(ctx context.Context, leader string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bus, err := g.connect(ctx, leader)
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
				g.log.Warn("a checkpoint was not fetched; it is tried again", "from", leader, "err", err)
			}
		case <-look.C:
			if now, known := g.node.Other(); known && now != leader {
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
func (g *group) connect(ctx context.Context, leader string) (*natsbus.Replica, error) {
	type connected struct {
		bus *natsbus.Replica
		err error
	}
	done := make(chan connected)
	g.late.Go(func() {
		bus, err := g.node.Link(ctx, leader)
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
	if err := otherBuild(a, engines.BuildIdentity()); err != nil {
		g.end(err)
		return nil
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
	if _, step := g.node.Logged(); g.ownRun() > step && g.job.Before != nil {
		g.end(cli.Usagef("%s holds a run up to step %d, and %s leads one of this name that has only %d: give this coordinator a new folder, or stop the group and give the others new folders, so that it begins with this run", g.state, g.ownRun(), a.Leader, step))
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
func (g *group) fetch(ctx context.Context, bus *natsbus.Replica, c follow.Checkpoint) error {
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
