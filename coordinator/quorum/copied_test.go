package quorum

import (
	"context"
	"errors"
	"testing"
	"time"

	"mochi/coordinator"
)

// TestCopied: a checkpoint counts when a majority holds it, whoever that is.
func TestCopied(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	g.do(func(ctx context.Context, l *Leadership) error {
		own := l.node.o.Name
		for name, f := range g.followers {
			f.take(0)
			if name == own {
				f.take(5)
			}
		}
		l.Stored(Checkpoint{Name: "c5", Step: 5})
		soon, cancel := context.WithTimeout(ctx, 5*g.beat)
		defer cancel()
		if err := l.Copied(soon, 5); errors.Is(err, coordinator.ErrFenced) {
			return err
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the leader alone holds it: %v", err)
		}
		for name, f := range g.followers {
			if name != own {
				f.take(6)
				break
			}
		}
		return l.Copied(ctx, 5)
	})
	leader, l := g.lead()
	for _, m := range g.members { // nobody answers: it waits, until it is deposed
		if m.Name != leader.o.Name {
			g.cut(leader.o.Name, m.Name)
			g.cut(m.Name, leader.o.Name)
		}
	}
	if err := l.Copied(t.Context(), 7); !errors.Is(err, coordinator.ErrFenced) {
		t.Errorf("cut off: %v", err)
	}
}

// TestHolderLeads: of those that are left the one with the newest checkpoint leads,
// whoever is elected, since the replicas may have gone home after it was stored. One that
// nobody has counts for nothing.
func TestHolderLeads(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	tell := func(c Checkpoint) *Leadership {
		var leads *Leadership
		g.do(func(ctx context.Context, l *Leadership) error {
			l.Stored(c)
			leads = l
			return l.Flush(ctx)
		})
		return leads
	}
	handOver := func(l *Leadership, to string) {
		if err := l.handTo(t.Context(), to); err != nil {
			t.Logf("on a busy machine: %v", err) // then chance decides who leads
		}
	}
	l := tell(Checkpoint{Name: "c5", Step: 5})
	lost := l.node.o.Name
	var others []string
	for _, m := range g.members {
		if m.Name != lost {
			others = append(others, m.Name)
		}
	}
	holder, lacks := others[0], others[1]
	g.followers[lost].take(5)
	g.followers[holder].take(5)
	handOver(l, lacks)
	g.kill(lost)
	if n, _ := g.lead(); n.o.Name != holder {
		t.Errorf("%s leads, and %s holds the last checkpoint", n.o.Name, holder)
	}
	// What nobody holds is not waited for.
	handOver(tell(Checkpoint{Name: "c9", Step: 9}), lacks)
	if _, _, err := g.leadWithin(30 * time.Second); err != nil {
		t.Error(err)
	}
}
