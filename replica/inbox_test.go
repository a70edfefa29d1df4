package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"mochi/coordinator/protocol"
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func TestInboxKeepsOrder(t *testing.T) {
	b := newInbox()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(100) {
			b.put(protocol.Message{Commit: &protocol.Commit{Step: i}})
		}
	})
	for i := range int64(100) {
		m, err := b.next(t.Context())
		if err != nil || m.Commit.Step != i {
			t.Fatalf("message %d: got %+v, %v", i, m.Commit, err)
		}
	}
	wg.Wait()
}

// A message that ends a round cancels the one in hand, and any begun
// before that message has been read.
func TestInboxEndsTheRoundInHand(t *testing.T) {
	for name, m := range map[string]protocol.Message{
		"round":   {Round: &protocol.Round{Round: 2}},
		"stop":    {Stop: &protocol.Stop{}},
		"refused": {Refused: &protocol.Refused{}},
	} {
		b := newInbox()
		ctx, end := b.attempt(t.Context())
		b.put(protocol.Message{Commit: &protocol.Commit{Step: 1}})
		if ctx.Err() != nil {
			t.Errorf("%s: a commit ended the round", name)
		}
		b.put(m)
		<-ctx.Done()
		end()
		if ctx, end := b.attempt(t.Context()); ctx.Err() == nil {
			t.Errorf("%s: a round began although an unread message ends it", name)
		} else {
			end()
		}
		if m, _ := b.next(t.Context()); m.Commit == nil {
			t.Errorf("%s: the commit before it was lost", name)
		}
		got, _ := b.next(t.Context())
		if !interrupts(got) {
			t.Errorf("%s: got %+v", name, got)
		}
		ctx, end = b.attempt(t.Context())
		if ctx.Err() != nil {
			t.Errorf("%s: still cancelled after it was read", name)
		}
		b.unread(got)
		if next, end := b.attempt(t.Context()); next.Err() == nil {
			t.Errorf("%s: unread does not count", name)
		} else {
			end()
		}
		end()
	}
}

// However often the coordinator asks who this is while nobody listens, it is told
// once, after what came before the last time it asked.
func TestInboxKeepsOneAgain(t *testing.T) {
	b := newInbox()
	for i := range 300 {
		b.put(protocol.Message{Again: &protocol.Again{Instance: fmt.Sprint(i)}})
		if i%100 == 0 {
			b.put(protocol.Message{Commit: &protocol.Commit{Step: int64(i)}})
		}
	}
	for _, step := range []int64{0, 100, 200} {
		if m, err := b.next(t.Context()); err != nil || m.Commit == nil || m.Commit.Step != step {
			t.Fatalf("got %+v, %v, want commit %d", m, err, step)
		}
	}
	if m, err := b.next(t.Context()); err != nil || m.Again == nil || m.Again.Instance != "299" {
		t.Fatalf("got %+v, %v, want the last Again", m, err)
	}
	b.close(io.EOF)
	if m, err := b.next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%+v is left, %v", m, err)
	}
}

func TestInboxCloseAndCancel(t *testing.T) {
	b := newInbox()
	b.put(protocol.Message{Again: &protocol.Again{}})
	broken := errors.New("broken")
	b.close(broken)
	if m, err := b.next(t.Context()); err != nil || m.Again == nil {
		t.Errorf("what came before the close must still be read: %+v, %v", m, err)
	}
	if _, err := b.next(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of close", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newInbox().next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
