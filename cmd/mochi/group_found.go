package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mochi/cmd/mochi/run"
	"mochi/coordinator/commitlog"
)

// foundWithin is how long the first leader of a group waits for the coordinators that
// have not said what they hold.
const foundWithin = 10 * time.Second

// errBetter: another coordinator should lead first.
var errBetter = errors.New("another coordinator of the group should lead")

// found begins the job of a group whose log is empty: with the run that this
// coordinator's folder held before, or its checkpoint, or with nothing. Who holds more
// must be the one, so all are heard first.
func (g *group) found(ctx context.Context, l leadership) error {
	g.awaitRuns(ctx)
	own := g.ownRun()
	for name, h := range g.heard.all() {
		if h.Run > own {
			return fmt.Errorf("%w: %s holds a run up to step %d, and %s one up to step %d", errBetter, name, h.Run, g.self.Name, own)
		}
	}
	if b := g.job.Before; b != nil && b.Last.Step > 0 {
		if err := g.bringIn(ctx, l, b); err != nil {
			return fmt.Errorf("begin with the run that was there before: %w", err)
		}
	}
	// What replicas keep of an earlier run is not wanted after --resume FILE or --init.
	g.job.Afresh = g.from.State != nil && g.job.Before == nil
	c, ok, err := g.job.Store.Newest()
	if ok {
		l.Stored(c)
	}
	return errors.Join(err, l.Flush(ctx))
}

// awaitRuns waits until all other coordinators have said what they hold, for a while.
func (g *group) awaitRuns(ctx context.Context) {
	limit, done := context.WithTimeout(ctx, foundWithin)
	defer done()
	for said := false; ; said = true {
		missing := g.node.Missing()
		switch {
		case len(missing) == 0:
			return
		case !said:
			g.progress.Say("a new group: waiting for %s, %v at most", strings.Join(missing, ", "), foundWithin)
		}
		if !sleep(limit, lookEvery) {
			if ctx.Err() == nil {
				g.progress.Say("note: the job begins without %s; what its folder holds from before must not be more than what this one has", strings.Join(missing, ", "))
			}
			return
		}
	}
}

// bringIn puts the run of a single coordinator into the group's log: its commits, and
// what else a coordinator must know. Its lines are the group's already.
func (g *group) bringIn(ctx context.Context, l leadership, b *run.Before) error {
	log := b.Log()
	commits, err := log.After(ctx, min(g.job.Store.Step(), b.Last.Step-commitlog.Keep))
	if err != nil {
		return err
	}
	term, err := log.Lead(ctx, b.Last.Term)
	if err != nil {
		return err
	}
	round, err := log.Round(ctx)
	if err != nil {
		return err
	}
	data, err := log.Data(ctx)
	if err != nil {
		return err
	}
	if err := l.Adopt(ctx, commits); err != nil {
		return err
	}
	if _, err := l.Lead(ctx, term); err != nil {
		return err
	}
	for name, note := range log.Notes() {
		if err := l.SaveNote(ctx, name, note); err != nil {
			return err
		}
	}
	if err := errors.Join(l.SaveRound(ctx, round), l.SaveData(ctx, data)); err != nil {
		return err
	}
	g.progress.Say("the group goes on with the run that %s held, after step %d", g.state, b.Last.Step)
	return nil
}
