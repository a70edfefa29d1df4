package replica

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// save stores the state of a round, after a commit or of a round that has no
// step, as a checkpoint: rank 0 does, and the members of a spread queue send it
// their shards. If that fails rank 0 says so (Failed.Unsaved) and the coordinator
// tries again later. The attempt ends the gathering, not the upload.
func (r *Replica) save(ctx, attempt context.Context, p *party) error {
	s := r.session
	p.phase(p.Round.Round, s.at.step, protocol.PhaseSaving)
	keys, labels, err := s.queue.gather(attempt, p.membership, p.ring, s.at.step)
	if err != nil {
		if p.rank == 0 {
			// Said at once and of no round: the next one may have begun.
			f := protocol.Failed{Step: s.at.step + 1, Unsaved: s.at.step, Error: err.Error()}
			if serr := r.send(ctx, protocol.Message{Failed: &f}); serr != nil {
				return serr
			}
		}
		return err
	}
	if p.rank != 0 {
		return nil
	}
	return r.upload(ctx, s.snapshot(keys, labels))
}

// divergedError is a state that a commit has led to and that is of no use: the
// checkpoint before stays the newest.
type divergedError struct {
	step   int64
	tensor string
}

func (e *divergedError) Error() string {
	return fmt.Sprintf("the update of step %d gave %s a NaN or an infinity: training diverged, and no checkpoint of it is stored; start again from one before, with a lower --lr", e.step, e.tensor)
}

// upload sends a state that is of use.
func (r *Replica) upload(ctx context.Context, state *checkpoint.State) error {
	if tensor := state.NotFinite(); tensor != "" {
		return &divergedError{state.Step, tensor}
	}
	return r.uploads.start(ctx, state)
}

// saveAlone stores the state of a replica that holds all of it, outside a round.
func (r *Replica) saveAlone(ctx context.Context) error {
	s := r.session
	return r.upload(ctx, s.snapshot(s.queue.Keys(), s.queue.Labels()))
}

// uploads sends checkpoints to the coordinator, which keeps the run's files. A
// state is encoded at once and travels while training goes on, one at a time; of
// those that wait for their turn only the newest is sent. It is safe for
// concurrent use.
type uploads struct {
	link    Link
	log     *slog.Logger
	running sync.WaitGroup

	mu   sync.Mutex
	busy bool
	hand int64    // the step of the one in hand
	next *encoded // nil: nothing waits
}

// step is that of the state that is being sent, or waits for its turn; 0: none.
func (u *uploads) step() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.next != nil:
		return u.next.step
	case u.busy:
		return u.hand
	}
	return 0
}

// encoded is a checkpoint as it travels.
type encoded struct {
	step int64
	data []byte
}

// start sends a state, now or after the upload in hand, and does not wait for it.
// The uploads end with ctx.
func (u *uploads) start(ctx context.Context, state *checkpoint.State) error {
	var buf bytes.Buffer
	if err := checkpoint.Write(&buf, state); err != nil {
		return fmt.Errorf("write the checkpoint of step %d: %w", state.Step, err)
	}
	u.send(ctx, encoded{state.Step, buf.Bytes()})
	return nil
}

// send is start for what is encoded.
func (u *uploads) send(ctx context.Context, e encoded) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = &e
	if u.busy {
		return
	}
	u.busy = true
	u.running.Go(func() {
		for e := u.take(); e != nil; e = u.take() {
			if err := u.link.Upload(ctx, e.step, e.data); err != nil {
				// Training goes on: the coordinator reports that the checkpoint is
				// missing, and the previous one stays valid.
				u.log.Error("checkpoint not stored", "step", e.step, "err", err)
			}
		}
	})
}

// take is the checkpoint whose turn it is; nil ends the sending.
func (u *uploads) take() (e *encoded) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, u.next = u.next, nil
	if u.busy = e != nil; u.busy {
		u.hand = e.step
	}
	return e
}

// wait waits for the checkpoints in flight.
func (u *uploads) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { u.running.Wait(); close(done) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}
