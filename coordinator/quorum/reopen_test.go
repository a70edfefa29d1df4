package quorum

import (
	"context"
	"errors"
	"testing"
)

// TestStartedAgainAfterTheEnd: who was there when the job ended leads no more; a group
// that is started after that goes on, also from a snapshot.
func TestStartedAgainAfterTheEnd(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	first := g.commit("g")
	leader, _ := g.lead()
	g.do(func(ctx context.Context, l *Leadership) error {
		return l.Over(ctx, Outcome{Status: 130, Reason: "interrupted"})
	})
	g.kill(leader.o.Name)
	for _, n := range g.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), 6*beat)
		if _, err := n.Lead(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s leads a job that is over: %v", n.o.Name, err)
		}
		cancel()
		if err := n.raft.Snapshot().Error(); err != nil {
			t.Errorf("%s: %v", n.o.Name, err)
		}
	}
	for _, m := range g.members {
		g.kill(m.Name)
	}
	g.startAll()
	if next := g.commit("g"); next.Step != first.Step+1 || next.Chain != next.Link(first.Chain) {
		t.Errorf("%+v does not follow %+v", next, first)
	}
	again, _ := g.lead()
	g.kill(again.o.Name)
	g.do(func(ctx context.Context, l *Leadership) error { return l.Flush(ctx) })
}
