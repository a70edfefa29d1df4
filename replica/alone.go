package replica

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrOrphaned is wrapped by the error of Run when there was no connection to the
// coordinator for Config.Orphaned.
var ErrOrphaned = errors.New("alone for too long")

// errGraceOver ends a replica that leaves and has no more time.
var errGraceOver = errors.New("the grace is over")

// errNobody ends a replica that leaves and has no connection to anybody who could let it go.
var errNobody = errors.New("no coordinator is reached")

// Presence is what a Link may be able to tell besides: whether there is a
// connection to a coordinator. One that cannot makes no orphans.
type Presence interface{ Connected() bool }

// Moves is what a Link may be able to tell besides: that it leads to another
// coordinator than before, which does not know this replica.
type Moves interface{ Moved() <-chan struct{} }

const (
	lookEvery = time.Second     // whether somebody is there
	slept     = 5 * time.Second // more than that between two looks: this process stood still, and was given up meanwhile
	wakeful   = 30 * time.Second
	awake     = 10 * time.Second // of connection: somebody is there after all
)

// watchAlone ends the replica when it is alone for too long: a coordinator may be
// started again, even after minutes, but a job may also be over without a word
// to a replica that was cut off. One that stood still itself missed more: the
// others have gone on without it, and if nobody is there when it wakes the job
// has probably ended.
func (r *Replica) watchAlone(ctx context.Context, link Presence, end context.CancelCauseFunc) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := time.Now()                // the last look
	there, alone := last, time.Time{} // connected since; alone since, zero: connected
	limit, heard := r.cfg.Orphaned, r.heard.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) > slept { // what was before does not count
			limit, heard, alone = min(r.cfg.Orphaned, wakeful), r.heard.Load(), time.Time{}
			there = now
		}
		last = now
		switch {
		case !link.Connected():
			if alone.IsZero() {
				alone = now
			}
			if now.Sub(alone) >= limit {
				end(fmt.Errorf("%w: no coordinator was reached for %v: the job is over, or its address is another now", ErrOrphaned, now.Sub(alone).Round(time.Second)))
				return
			}
		case !alone.IsZero():
			alone, there = time.Time{}, now
		case now.Sub(there) >= awake || r.heard.Load() != heard:
			limit = r.cfg.Orphaned
		}
	}
}

// endGrace ends a replica that leaves when it has no more time, whatever it does; and when
// no coordinator is reached that could ask it for its state: at once where it has none.
func (r *Replica) endGrace(ctx context.Context, end context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
		return
	case <-r.leaving:
	}
	var over <-chan time.Time // never, where it has no end
	if grace := time.Duration(r.grace.Load()) * time.Millisecond; grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		over = timer.C
	}
	link, tells := r.cfg.Link.(Presence)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for there := time.Now(); ; {
		switch {
		case !tells || link.Connected():
			there = time.Now()
		case !r.built.Load(), time.Since(there) >= farewell: // it has nothing to hand over, or nobody to
			end(errNobody)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-over:
			end(errGraceOver)
			return
		case <-look.C:
		}
	}
}
