package replica

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
	"mochi/replica/criterion"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// phases measures a step by name, in ms.
type phases struct {
	ms   map[string]float64
	last time.Time
}

func newPhases() *phases { return &phases{ms: make(map[string]float64, 8), last: time.Now()} }

// end adds the time since the last end to a phase.
func (p *phases) end(name string) {
	now := time.Now()
	p.ms[name] += now.Sub(p.last).Seconds() * 1e3
	p.last = now
}

// step runs one step up to and including its commit. attempt ends when the step
// is pointless; the commit itself is awaited without it, in the inbox's order.
func (r *Replica) step(ctx, attempt context.Context, p *party) (protocol.Commit, error) {
	s := r.session
	t := newPhases()
	p.phase(p.Round.Round, s.at.step+1, protocol.PhaseComputing)
	groups, err := s.compute(attempt, p, t)
	if err != nil {
		return protocol.Commit{}, err
	}
	ready := protocol.Ready{
		Round: s.vote.round, Step: s.vote.step, Digest: s.vote.digest, Groups: groups,
		BusyMS: t.ms["key_forward"] + t.ms["query"], Phases: t.ms,
	}
	p.phase(ready.Round, ready.Step, protocol.PhaseReady)
	if err := r.send(ctx, protocol.Message{Ready: &ready}); err != nil {
		return protocol.Commit{}, err
	}
	commit, err := r.awaitCommit(ctx, ready.Step)
	if err != nil {
		return protocol.Commit{}, err
	}
	if err := r.finish(ctx, commit); err != nil {
		return protocol.Commit{}, err
	}
	if commit.Checkpoint && p.saves() {
		return commit, r.save(ctx, attempt, p)
	}
	return commit, nil
}

// compute is a step up to the vote: keys, loss, gradients, their sums. It
// changes nothing but scratch; the result is s.vote.
func (s *session) compute(ctx context.Context, p *party, t *phases) ([]protocol.GroupReport, error) {
	s.vote = nil
	step := s.at.step + 1
	if s.applyMS > 0 {
		t.ms["apply"] = s.applyMS // of the step before: this one's is not known when it votes
	}
	batch, err := s.input.Next(ctx, s.at.step, s.at.cursor)
	if err != nil {
		return nil, fmt.Errorf("load the batch of step %d: %w", step, err)
	}
	defer s.input.Release()
	p.did()
	t.end("load")

	terms := s.sums.Begin(len(p.own()))
	if err := s.encodeKeys(ctx, p, batch, terms); err != nil {
		return nil, err
	}
	t.end("key_forward")
	if err := s.keys.gather(ctx, p, step, s.job.BNGroup, batch.Shuffle); err != nil {
		return nil, err
	}
	t.end("gather")
	reports, err := s.encodeQueries(ctx, p, batch, terms)
	t.end("query")
	p.peers(true)
	werr := s.sums.Wait()
	p.peers(false)
	if err == nil {
		err = werr
	}
	t.end("reduce")
	if err != nil {
		return nil, err
	}
	s.vote = &vote{round: p.Round.Round, step: step, digest: s.computed(), classes: batch.Classes}
	t.end("digest")
	return reports, nil
}

// computed is the digest of what a step computed, before it is applied.
func (s *session) computed() string {
	sums := s.sums.Vector()
	half := len(sums) / 2 // for two cores
	return checkpoint.DigestString(strings.Join(checkpoint.Digests(sums[:half], sums[half:], s.keys.ordered), ""))
}

// encodeQueries runs query forward, loss and backward of this member's units,
// wave by wave (package criterion), and starts the sums before the last
// backward, during which parameters become final and leave.
func (s *session) encodeQueries(ctx context.Context, p *party, batch *input.Step, terms []reduction.Terms) ([]protocol.GroupReport, error) {
	step := s.at.step + 1
	units := p.own()
	waves := p.loss.Begin(criterion.Step{
		Number: step, Mix: s.input.Epoch(s.at.cursor) >= s.job.MoCHiWarmup,
		Keys: s.keys.ordered, Samples: batch.Samples, Labels: batch.Labels,
	})
	reports := make([]protocol.GroupReport, 0, len(units)*s.model.atOnce)
	for wave := range waves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q := p.loss.Queries(wave)
		if q != nil {
			if err := s.model.moco.Forward(batch.Query[wave], q, terms[wave].Query); err != nil {
				return nil, fmt.Errorf("%s at step %d: %w", s.model.unit(units[wave]), step, err)
			}
			p.did()
			if err := s.input.StageQueries(wave + 1); err != nil {
				return nil, err
			}
		}
		losses, err := p.loss.Evaluate(ctx, wave)
		if err != nil {
			return nil, fmt.Errorf("the loss of %s at step %d: %w", p.wave(s.model, wave), step, err)
		}
		if wave == waves-1 {
			s.sums.Start(ctx, p.ring.background(), step, p.alone())
		}
		if q == nil {
			continue
		}
		for j, out := range losses.Groups {
			reports = append(reports, protocol.GroupReport{Group: units[wave] + j, Figures: out.Figures})
		}
		if err := s.backward(losses.DQ, terms[wave].Grads, wave == len(units)-1); err != nil {
			return nil, fmt.Errorf("%s at step %d: %w", s.model.unit(units[wave]), step, err)
		}
		p.did()
	}
	if waves == 0 { // it has no unit, and nobody asks it for losses
		s.sums.Start(ctx, p.ring.background(), step, p.alone())
	}
	s.sums.Complete()
	return reports, nil
}

// backward takes the gradients of a unit's queries backward. During the last
// one, parameters become final.
func (s *session) backward(dq, grads []float32, last bool) error {
	if !last {
		return s.model.moco.Backward(dq, grads, nil)
	}
	if err := s.input.StageAhead(); err != nil {
		return err
	}
	return s.model.moco.Backward(dq, grads, s.sums.Final)
}

// awaitCommit waits, in the order of the inbox, for the commit of the step that
// was voted for or for what replaces it.
func (r *Replica) awaitCommit(ctx context.Context, step int64) (protocol.Commit, error) {
	for {
		m, err := r.inbox.next(ctx)
		if err != nil {
			return protocol.Commit{}, err
		}
		switch voted.on(m) {
		case apply:
			if m.Commit.Step == step {
				return *m.Commit, nil
			}
		case interrupt:
			r.inbox.unread(m)
			return protocol.Commit{}, errSuperseded
		case adopt:
			r.setInstance(m.Welcome.Instance)
		case introduce:
			if err := r.hello(ctx); err != nil {
				return protocol.Commit{}, err
			}
		}
	}
}

// finish applies the commit of the step that was voted for and reports the state
// it leads to.
func (r *Replica) finish(ctx context.Context, c protocol.Commit) error {
	s := r.session
	if c.Digest != s.vote.digest {
		s.forget()
		return &stateError{fmt.Sprintf("step %d was committed with gradients %s, this replica holds others; it needs the state of a peer", c.Step, c.Digest)}
	}
	r.progress.phase(c.Round, c.Step, protocol.PhaseApplying)
	start := time.Now()
	if err := s.apply(c); err != nil {
		return err
	}
	s.applyMS = time.Since(start).Seconds() * 1e3
	return r.send(ctx, protocol.Message{Applied: s.applied(c)})
}
