package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/round"
)

// Voted is the state after a step as its members reported it: what its
// checkpoint must be.
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
	mu        sync.Mutex
	closed    int64 // steps up to here get no first report any more
	inherited int64 // steps up to here were committed before this coordinator started
	settled   bool  // the replicas of those steps have said Hello
	of        map[int64]Voted
	said      map[int64]map[string]protocol.Position // of steps not in of: what single replicas say, by id
	waiting   map[string]protocol.Hello              // of replicas that obey another leader still; the server's goroutine alone
	coveredTo int64                                  // a checkpoint of this step is stored
	changed   chan struct{}                          // closed with the next change
}

func newVotes() *votes {
	return &votes{of: map[int64]Voted{}, said: map[int64]map[string]protocol.Position{}, waiting: map[string]protocol.Hello{}, changed: make(chan struct{})}
}

// saidSteps is of how many steps at most it is remembered what single replicas said.
const saidSteps = 64

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
	v.wakeLocked()
}

func (v *votes) wakeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// inherit says that the steps up to one are an earlier coordinator's: who was there
// has yet to say what they led to.
func (v *votes) inherit(step int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inherited = max(v.inherited, step)
}

// settle says that the replicas of earlier steps have been heard.
func (v *votes) settle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.settled {
		v.settled = true
		v.wakeLocked()
	}
}

// hear takes what a replica says that the state after a step was. It counts where no
// members were compared: after steps of an earlier coordinator, or that all members
// applied later.
func (v *votes) hear(id string, at protocol.Position) {
	if at.Digest == "" {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.said[at.Step] == nil {
		v.said[at.Step] = map[string]protocol.Position{}
	}
	v.said[at.Step][id] = at
	if len(v.said) > saidSteps {
		delete(v.said, slices.Min(slices.Collect(maps.Keys(v.said))))
	}
	v.wakeLocked()
}

// agreedLocked is what most of those say that were heard of a step; false when nobody
// was, or as many say another thing.
func (v *votes) agreedLocked(step int64) (Voted, bool) {
	count := map[string]int{}
	for _, at := range v.said[step] {
		count[at.Digest]++
	}
	best, tie := "", false
	for digest, n := range count {
		switch {
		case best == "" || n > count[best]:
			best, tie = digest, false
		case n == count[best]:
			tie = true
		}
	}
	if best == "" || tie {
		return Voted{}, false
	}
	var shards []string
	differs := map[int]bool{}
	for _, at := range v.said[step] {
		if at.Digest != best {
			continue
		}
		for i, digest := range at.Shards {
			if i >= len(shards) {
				shards = append(shards, "")
			}
			differs[i] = differs[i] || digest != "" && shards[i] != "" && digest != shards[i]
			if digest != "" {
				shards[i] = digest
			}
		}
	}
	for i := range differs {
		if differs[i] {
			shards[i] = ""
		}
	}
	return Voted{Digest: best, Shards: shards}, true
}

// covered forgets the steps before one whose checkpoint is stored.
func (v *votes) covered(step int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.coveredTo = max(v.coveredTo, step)
	maps.DeleteFunc(v.of, func(s int64, _ Voted) bool { return s < step })
	maps.DeleteFunc(v.said, func(s int64, _ map[string]protocol.Position) bool { return s < step })
}

// after is what was reported of a step, once it is closed. What nobody reported
// cannot be compared with anything, and is refused.
func (v *votes) after(ctx context.Context, step int64) (Voted, error) {
	late := time.NewTimer(votedWithin)
	defer late.Stop()
	for {
		v.mu.Lock()
		voted, known := v.of[step]
		closed, changed := step <= v.closed && (step > v.inherited || v.settled), v.changed
		if !known && closed {
			voted, known = v.agreedLocked(step)
		}
		covered := v.coveredTo
		v.mu.Unlock()
		switch {
		case known && closed:
			return voted, nil
		case step < covered:
			return Voted{}, fmt.Errorf("the checkpoint of step %d comes too late: that of step %d is stored", step, covered)
		case closed:
			return Voted{}, fmt.Errorf("no replica that is here has said what state step %d led to, or they say different things: there is nothing to compare its checkpoint with", step)
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

// settleWithin is how long after its start a coordinator waits for the replicas of
// earlier steps before it takes what has been said of them. One that waits for its
// upload to end may say nothing more.
const settleWithin = 5 * time.Second

// note remembers what the core knows after an input: it may have taken over a
// state that replicas brought, or none may be due any more.
func (v *votes) note(c *Core, up time.Duration) {
	v.admitted(c)
	if up >= settleWithin || c.course.Begun() || c.course.State() == round.Concluding {
		v.settle()
	}
	if r := c.course.Round(); r != nil && r.Open() {
		return
	}
	v.close(c.history.At())
}

// listen takes from a message of a replica that is admitted what it says of states.
// That of one which is admitted later, without saying it again, is kept until then.
func (v *votes) listen(c *Core, m protocol.Message) {
	switch {
	case m.Hello != nil && c.roster.Get(m.Hello.ID) != nil:
		v.greeted(*m.Hello)
	case m.Hello != nil && c.isForeigner(m.Hello.ID):
		v.waiting[m.Hello.ID] = *m.Hello
	case m.Applied != nil && c.roster.Get(m.From) != nil:
		a := m.Applied
		v.hear(m.From, protocol.Position{Step: a.Step, Digest: a.StateDigest, Shards: a.Shards})
	}
}

func (v *votes) greeted(h protocol.Hello) {
	for _, at := range h.Stored {
		v.hear(h.ID, at)
	}
	if at := h.State; at != nil {
		v.hear(h.ID, *at)
	}
}

// admitted hears those that waited and are admitted now.
func (v *votes) admitted(c *Core) {
	for id, h := range v.waiting {
		if c.isForeigner(id) {
			continue
		}
		delete(v.waiting, id)
		if c.roster.Get(id) != nil {
			v.greeted(h)
		}
	}
}
