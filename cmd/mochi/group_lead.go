package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/follow"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
)

// leads is logged when a coordinator begins to lead a group.
type leads struct {
	event.Info
	Coordinator string `json:"coordinator"` // its name (--name)
	Step        int64  `json:"step"`        // of the last commit that it found
}

// EventName implements event.Event.
func (leads) EventName() string { return "leads" }

const (
	resignWithin = 5 * time.Second // for another to take over
	overWithin   = time.Minute     // for the others to hear of the end, and to fetch the last checkpoint
	leadPause    = time.Second     // before one that could not lead tries again
)

// lead runs the job for as long as this coordinator leads. over says that the process
// ends: with nil or the error, as the job did or as it was told to.
func (g *group) lead(ctx context.Context, l leadership) (over bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := g.agrees(); err != nil {
		g.resign(l)
		return true, err
	}
	g.progress.Say("%s leads", g.self.Name)
	bus, nats, err := g.node.Serve(ctx)
	if err != nil { // somebody else has the port: another may lead
		g.log.Warn("cannot lead", "err", err)
		g.resign(l)
		sleep(ctx, leadPause)
		return false, nil
	}
	if nats != nil {
		defer nats.Shutdown()
	}
	// Who is deposed is silent at once: what its replicas still send goes to the next.
	deposed := make(chan struct{})
	go func() {
		select {
		case <-l.Done():
			g.log.Warn("no longer leads")
			if nats != nil {
				nats.Shutdown()
			}
		case <-ctx.Done():
		}
		cancel()
		close(deposed)
	}()
	defer func() { cancel(); <-deposed }()
	defer bus.Close()
	if err := g.begin(ctx, l, bus); err != nil {
		return g.unfit(ctx, l, err)
	}
	p := g.parts(g.job, nats)
	p.bus, p.commits, p.status, p.others = bus, shared{l, g.heard}, g.withGroup, g.addresses()
	p.copied = l.Copied
	g.job.Store.Shared = l.Stored
	// What the one before had begun to evaluate, it has not: the next checkpoint is.
	g.job.Store.Saved = g.knn.Saved(ctx, &checkpoint.State{Epoch: g.job.Copies.Measured()})
	srv, err := newServer(ctx, p)
	if err != nil {
		return g.unfit(ctx, l, err)
	}
	told := make(chan struct{})
	left := false // on SIGTERM
	go func() {
		defer close(told)
		select {
		case s := <-g.signals:
			if s == syscall.SIGTERM {
				left = true
				g.progress.Say("handing over to another coordinator")
				g.resign(l)
				cancel()
				return
			}
			srv.Stop("interrupted")
		case <-ctx.Done():
		}
	}()
	join := strings.Join(g.addresses(), ",")
	if g.nats != nil {
		join = g.nats.text
	}
	g.progress.Say("job %s: replicas join with  mochi replica --join %s --data …", g.name, join)
	err = srv.Run(ctx)
	g.progress.Done()
	switch {
	case err == nil, errors.Is(err, coordinator.ErrJobFailed):
		return g.finish(ctx, l, err)
	}
	cancel()
	<-told
	switch {
	case left:
		return true, nil
	case isDone(l), errors.Is(err, coordinator.ErrFenced):
		return false, nil
	}
	g.resign(l)
	return true, err
}

// agrees says why this coordinator must not lead: the job was begun with other settings.
func (g *group) agrees() error {
	text, _ := g.node.Logged()
	if text == "" {
		return nil
	}
	old, err := config.Recorded([]byte(text))
	if err != nil {
		return fmt.Errorf("the configuration in the group's log: %w", err)
	}
	if diff := config.Differences(old, g.job.Config); len(diff) > 0 {
		return cli.Usagef("the group's job has other settings (its value ≠ the one given here):\n  %s\nstart all coordinators with the job's settings; to go on with others, give all of them new folders (with --nats another --job, too) and --resume with the newest checkpoint", joinLines(diff))
	}
	return nil
}

// unfit gives the leadership up after an error, which ends the process unless it only
// means that another coordinator leads, or had better.
func (g *group) unfit(ctx context.Context, l leadership, err error) (over bool, _ error) {
	if isDone(l) || errors.Is(err, coordinator.ErrFenced) || ctx.Err() != nil {
		return false, nil
	}
	g.resign(l)
	if errors.Is(err, errBetter) {
		g.progress.Say("%v", err)
		sleep(ctx, leadPause)
		return false, nil
	}
	return true, err
}

// begin brings the group's log to where a job can go on from: the first leader founds
// it, each says that it leads.
func (g *group) begin(ctx context.Context, l leadership, bus *natsbus.Coordinator) error {
	g.job.Afresh = false
	g.heard.begin(g.self.Name)
	config, step := g.node.Logged()
	founded := config != ""
	if founded {
		g.heard.agreed(g.yaml())
	}
	if err := bus.ServeGroup(g.heard.hear); err != nil {
		return err
	}
	if !founded {
		if err := g.found(ctx, l); err != nil {
			return err
		}
	}
	g.job.Outlet.Lead(g.job.Copies.Shared(l.Line))
	if err := g.job.Outlet.Event(leads{Coordinator: g.self.Name, Step: step}); err != nil {
		return err
	}
	if err := l.SaveConfig(ctx, g.yaml()); err != nil {
		return err
	}
	g.heard.agreed(g.yaml())
	if b := g.job.Before; b != nil {
		g.job.Before = nil
		to, err := b.Done()
		if err != nil {
			return err
		}
		g.progress.Say("the commits of a single coordinator are kept in %s", to)
	}
	return l.Flush(ctx)
}

// finish ends the job for all of the group.
func (g *group) finish(ctx context.Context, l leadership, failed error) (over bool, err error) {
	g.knn.Wait()
	if failed == nil && !g.stop.asked() {
		err = g.knn.Trained(ctx, g.job.Store.Dir)
	}
	if err == nil {
		err = failed
	}
	err = orInterrupted(err, g.stop)
	o := follow.Outcome{Reason: "done"}
	switch {
	case errors.Is(err, cli.ErrInterrupted):
		o = follow.Outcome{Status: 130, Reason: "interrupted"}
	case err != nil:
		o = follow.Outcome{Status: 1, Reason: err.Error()}
	}
	within, done := context.WithTimeout(ctx, overWithin)
	defer done()
	if lost := errors.Join(l.Flush(within), l.Over(within, o)); lost != nil {
		if isDone(l) {
			return false, nil // the next one finds the job done, or goes on
		}
		g.log.Warn("the other coordinators may not have heard the end", "err", lost)
	}
	g.awaitOthers(within)
	return true, err
}

// awaitOthers waits until all who stand by have heard what this one has said, and have
// the last checkpoint, or have gone.
func (g *group) awaitOthers(ctx context.Context) {
	for {
		behind := g.node.Behind()
		for _, h := range g.heard.all() {
			behind = behind || h.here() && h.Checkpoint < g.job.Store.Step()
		}
		if !behind || !sleep(ctx, lookEvery) {
			return
		}
	}
}

// resign hands the leadership over, if another coordinator can take it.
func (g *group) resign(l leadership) {
	ctx, cancel := context.WithTimeout(context.Background(), resignWithin)
	defer cancel()
	if err := l.Resign(ctx); err != nil && !isDone(l) {
		g.log.Warn("no other coordinator has taken over yet", "err", err)
	}
}

// shared is the log of the group as the job sees it: what the checkpoint of a member that
// is there does not cover is not forgotten, since that member may lead next.
type shared struct {
	leadership
	others *standbys
}

// Forget implements coordinator.Log.
func (s shared) Forget(ctx context.Context, step int64) error {
	return s.leadership.Forget(ctx, min(step, s.others.covered()))
}

func isDone(l leadership) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

// sleep waits for a while; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
