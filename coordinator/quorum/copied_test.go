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
	leader, l := g.lead()
	g.followers[leader.o.Name].take(5)
	l.Stored(Checkpoint{Name: "c5", Step: 5})
	soon, cancel := context.WithTimeout(t.Context(), 5*g.beat)
	defer cancel()
	if err := l.Copied(soon, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the leader alone holds it: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Copied(t.Context(), 5) }()
	for name, f := range g.followers {
		if name != leader.o.Name {
			f.take(6)
			break
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
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
// a minority held counts for nothing.
func TestHolderLeads(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	// Whoever would be elected otherwise is asked not to stay: all change the leader
	// several times, and only the holder may keep it.
	leader, l := g.lead()
	lost := leader.o.Name
	var others []string
	for _, m := range g.members {
		if m.Name != lost {
			others = append(others, m.Name)
		}
	}
	g.followers[lost].take(5)
	l.Stored(Checkpoint{Name: "c5", Step: 5})
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	holder, lacks := others[0], others[1]
	g.eventually("both are told", func() bool {
		for _, name := range others {
			f := g.followers[name]
			f.mu.Lock()
			told := len(f.stored) > 0
			f.mu.Unlock()
			if !told {
				return false
			}
		}
		return true
	})
	g.followers[holder].take(5)
	// The one that lacks it is made the leader of the two.
	if err := l.handTo(t.Context(), lacks); err != nil {
		t.Fatal(err)
	}
	g.kill(lost)
	if n, _ := g.lead(); n.o.Name != holder {
		t.Errorf("%s leads, and %s holds the last checkpoint", n.o.Name, holder)
	}
	// What is held by nobody else is not waited for.
	_, l = g.lead()
	l.Stored(Checkpoint{Name: "c9", Step: 9})
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.handTo(t.Context(), lacks); err != nil {
		t.Fatal(err)
	}
	within := time.Now()
	if _, _, err := g.leadWithin(30 * time.Second); err != nil {
		t.Errorf("after %v: %v", time.Since(within), err)
	}
}
