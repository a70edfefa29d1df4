package coordinator

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"mochi/coordinator/protocol"
)

// One upload at a time works on the folder, so one that nobody wants would keep those out
// that were asked for. Therefore it begins only where the core has asked this replica for
// the state after this step, or has found it in its Hello (Uploading): sent for an earlier
// coordinator. Who sends before its Hello was heard, or before the log has got back the
// step, is told to come again. One that left under an earlier coordinator, and only sends its
// state still, says no Hello any more: it is told so for a while, and then to go.

const (
	mostBegun = 8  // times that an upload may begin for one time that it was asked for
	mostAsked = 64 // uploads of which it is remembered that they were asked for

	helloWithin = 10 * time.Second // from its first attempt a replica that is not known may come again
	mostUnknown = 1024             // of whom it is known when that was
)

// asked remembers which checkpoints were asked of whom. The server's goroutine writes,
// uploads ask. It is safe for concurrent use.
type asked struct {
	mu    sync.Mutex
	list  []ask // the oldest first
	times int   // that the core had asked for one, as of the last note

	head    int64                // the last step of the log
	unknown map[string]time.Time // when replicas that are not admitted tried first
	sending map[string]int64     // by admitted replica: the step of which it was sending the state when it said Hello; 0: none
}

// ask is one upload that was asked for.
type ask struct {
	from  string
	step  int64
	begun int // how often it has begun since
}

// note remembers what the core wants after an input.
func (a *asked) note(c *Core, in Input) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head = c.history.Head()
	if k := in.kind(); k == hello || k == led || k == tick {
		a.sending = map[string]int64{}
		for _, r := range c.roster.All() {
			a.sending[r.ID()] = r.Hello().Uploading
		}
	}
	from, step, times := c.upload.Asked()
	if times == a.times {
		return
	}
	a.times = times
	if from == "" {
		return
	}
	a.list = append(slices.DeleteFunc(a.list, func(o ask) bool { return o.from == from && o.step == step }), ask{from: from, step: step})
	if len(a.list) > mostAsked {
		a.list = a.list[1:]
	}
}

// wants says whether a replica may send the state after a step: nil, protocol.ErrNotYet
// when it should ask again, or why not.
func (a *asked) wants(from string, step int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.findLocked(from, step)
	return err
}

// begins counts that it does, and says whether it may.
func (a *asked) begins(from string, step int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	one, err := a.findLocked(from, step)
	if err != nil {
		return err
	}
	one.begun++
	return nil
}

func (a *asked) findLocked(from string, step int64) (*ask, error) {
	for i := range a.list {
		switch one := &a.list[i]; {
		case one.from != from || one.step != step:
		case one.begun >= mostBegun:
			return nil, fmt.Errorf("the checkpoint of step %d has begun %d times: it is not taken from this replica any more", step, one.begun)
		default:
			return one, nil
		}
	}
	sending, admitted := a.sending[from]
	if admitted && sending == step && step > a.head || !admitted && a.mayComeLocked(from, time.Now()) {
		return nil, protocol.ErrNotYet
	}
	return nil, fmt.Errorf("nobody has asked this replica for the checkpoint of step %d", step)
}

// mayComeLocked says whether somebody who is not known may still say who it is.
func (a *asked) mayComeLocked(from string, now time.Time) bool {
	first, tried := a.unknown[from]
	if !tried {
		if a.unknown == nil || len(a.unknown) >= mostUnknown {
			a.unknown = map[string]time.Time{}
		}
		first, a.unknown[from] = now, now
	}
	return now.Sub(first) < helloWithin
}
