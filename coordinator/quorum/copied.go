package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mochi/coordinator"
)

// copyLimit is how long a checkpoint is waited for that no other member gets on with,
// while most of them are heard.
const copyLimit = 10 * time.Minute

// giveWayLimit is how long a new leader tries to hand over to one that holds the newest
// checkpoint.
const giveWayLimit = 20 * time.Second

// Copied returns when a majority of the members holds the checkpoint of a step, or a
// later one. Members that cannot be reached are waited for as long as there is no
// majority without them; those that are there, as long as they get on, and then the
// error says who lacks it.
func (l *Leadership) Copied(ctx context.Context, step int64) error {
	n := l.node
	since, before := time.Now(), int64(-1)
	for {
		heard := n.asked.all(ctx)
		own, _ := n.o.Follow.Checkpoint()
		have, moved := 0, int64(0)
		if own >= step {
			have++
		}
		var faults []error
		for _, name := range n.names {
			a, here := heard[name]
			switch {
			case name == n.o.Name:
			case !here:
				faults = append(faults, fmt.Errorf("coordinator %s is away", name))
			case a.Checkpoint >= step:
				have++
			default:
				moved += a.Arrived
				faults = append(faults, fmt.Errorf("coordinator %s does not get on with it, and its log says why", name))
			}
		}
		switch {
		case l.over():
			return fmt.Errorf("the checkpoint of step %d: %w", step, coordinator.ErrFenced)
		case n.most(have):
			return nil
		case moved != before, !n.most(len(heard) + 1):
			since, before = time.Now(), moved
		case time.Since(since) >= copyLimit:
			return fmt.Errorf("%d of %d coordinators hold the checkpoint of step %d: %w", have, len(n.names), step, errors.Join(faults...))
		}
		if err := l.pause(ctx, n.o.Heartbeat/5); err != nil {
			return err
		}
	}
}

// most says whether so many members are a majority.
func (n *Node) most(members int) bool { return 2*members > len(n.names) }

// pause waits for a while, or until the leadership ends.
func (l *Leadership) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-l.done:
		return coordinator.ErrFenced
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveWay hands a leadership that begins over to a member that holds the newest
// checkpoint, when this one does not: that may be all there is of the last state. One
// that counted as stored is held by a majority, so of any majority one member has it.
// Where fewer have it replicas are still there.
func (n *Node) giveWay(ctx context.Context, l *Leadership) error {
	newest := int64(0)
	n.machine.read(func(s *state) {
		if s.checkpoint != nil {
			newest = s.checkpoint.Step
		}
	})
	for began := time.Now(); ; {
		if own, _ := n.o.Follow.Checkpoint(); own >= newest {
			return nil
		}
		heard := n.asked.all(ctx)
		var holders []string
		for _, name := range n.names {
			if a, ok := heard[name]; ok && a.Checkpoint >= newest && a.Standing == voting {
				holders = append(holders, name)
			}
		}
		slices.SortStableFunc(holders, func(a, b string) int { return int(heard[b].Entries) - int(heard[a].Entries) })
		for _, name := range holders {
			n.log.Info("coordinators", "state", "handing over to one that holds the newest checkpoint", "coordinator", name, "step", newest)
			err := l.handTo(ctx, name)
			if err == nil {
				return coordinator.ErrFenced
			}
			n.log.Debug("not handed over", "coordinator", name, "err", err)
		}
		switch {
		case len(holders) == 0 && n.most(len(heard)+1):
			return nil // it never counted
		case time.Since(began) >= giveWayLimit:
			n.log.Warn("this coordinator leads without the newest checkpoint, which others hold and cannot lead with", "step", newest, "held by", holders)
			return nil
		}
		if err := l.pause(ctx, n.o.Heartbeat/5); err != nil {
			return err
		}
	}
}
