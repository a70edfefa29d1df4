package coordinator

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// Voted is the state after a step as its members reported it: what its
// checkpoint must be. The zero value is that of a step of which nobody reported
// anything to this coordinator; it fits every checkpoint.
type Voted struct {
	Digest string   // of everything but the queue, protocol.Applied.StateDigest; "" when not known
	Shards []string // of the queue's shards, "" for those not known; nil: none is
}

// votedWithin is how long an upload waits for the reports of its own step. A
// step that is never closed ends its round long before.
const votedWithin = 5 * time.Minute

// votes remembers what was reported of the steps that no checkpoint covers yet.
// The server's goroutine writes, uploads wait. It is safe for concurrent use.
type votes struct {
	mu      sync.Mutex
	closed  int64 // steps up to here get no first report any more
	of      map[int64]Voted
	changed chan struct{} // closed with the next change
}

func newVotes() *votes { return &votes{of: map[int64]Voted{}, changed: make(chan struct{})} }

// report takes what is known of the state after a step, which is then closed.
func (v *votes) report(step int64, voted Voted) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if voted.Digest != "" {
		v.of[step] = voted
	}
	v.closeLocked(step)
}

// close says that nobody will report a step, or an earlier one, who has not yet.
func (v *votes) close(step int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeLocked(step)
}

func (v *votes) closeLocked(step int64) {
	if step <= v.closed {
		return
	}
	v.closed = step
	close(v.changed)
	v.changed = make(chan struct{})
}

// covered forgets the steps before one whose checkpoint is stored.
func (v *votes) covered(step int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.of, func(s int64, _ Voted) bool { return s < step })
}

// after is what was reported of a step, once it is closed.
func (v *votes) after(ctx context.Context, step int64) (Voted, error) {
	late := time.NewTimer(votedWithin)
	defer late.Stop()
	for {
		v.mu.Lock()
		voted, closed, changed := v.of[step], step <= v.closed, v.changed
		v.mu.Unlock()
		if closed {
			return voted, nil
		}
		select {
		case <-ctx.Done():
			return Voted{}, ctx.Err()
		case <-late.C:
			return Voted{}, fmt.Errorf("after %s the members of step %d have not said what state it led to: there is nothing to compare its checkpoint with", votedWithin, step)
		case <-changed:
		}
	}
}

// note remembers what the core knows after an input: it may have taken over a
// state that replicas brought, or none may be due any more.
func (v *votes) note(c *Core) {
	if r := c.course.Round(); r != nil && r.Open() {
		return
	}
	v.close(c.history.At())
}
