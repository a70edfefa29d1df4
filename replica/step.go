package replica

import (
	"context"
	"fmt"
	"strings"

	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
	"mochi/replica/criterion"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// step runs one step up to and including its commit. attempt ends when the step
// is pointless; the commit itself is awaited without it, in the inbox's order.
func (r *Replica) step(ctx, attempt context.Context, p *party) (protocol.Commit, error) {
	s := r.session
	t := newPhases()
	p.phase(p.Round.Round, s.at.step+1, protocol.PhaseComputing)
	ready := protocol.Ready{Phases: t.ms, CPU: t.cpu}
	if err := s.compute(attempt, p, t, &ready); err != nil {
		return protocol.Commit{}, err
	}
	ready.Round, ready.Step, ready.Digest = s.vote.round, s.vote.step, s.vote.digest
	ready.BusyMS = t.ms["key_forward"] + t.ms["query"] + t.ms[protocol.MeasureProbe]
	p.phase(ready.Round, ready.Step, protocol.PhaseReady)
	t = newPhases() // the vote has what was measured before it, Applied the rest
	var err error
	t.work(protocol.MeasureVote, func() { err = r.send(ctx, protocol.Message{Ready: &ready}) })
	if err != nil {
		return protocol.Commit{}, err
	}
	t.end(protocol.MeasureVote)
	commit, err := r.awaitCommit(ctx, ready.Step)
	if err != nil {
		return protocol.Commit{}, err
	}
	t.end(protocol.MeasureCommit)
	if err := r.finish(ctx, commit, t); err != nil {
		return protocol.Commit{}, err
	}
	if commit.Checkpoint && p.saves() {
		return commit, r.save(ctx, attempt, p)
	}
	return commit, nil
}

// compute is a step up to the vote: keys, loss, gradients, their sums. It
// changes nothing but scratch; the result is s.vote, and what ready says of the
// groups.
func (s *session) compute(ctx context.Context, p *party, t *phases, ready *protocol.Ready) error {
	s.vote = nil
	step := s.at.step + 1
	batch, err := s.input.Next(ctx, s.at.step, s.at.cursor)
	if err != nil {
		return fmt.Errorf("load the batch of step %d: %w", step, err)
	}
	defer s.input.Release()
	p.did()
	t.end("load")

	terms := s.sums.Begin(len(p.own()))
	if err := s.objective.encodeKeys(ctx, p, batch, terms); err != nil {
		return err
	}
	if err := s.soundKeys(p, terms); err != nil {
		return err
	}
	t.end("key_forward")
	if err := s.objective.gather(ctx, p, batch); err != nil {
		return err
	}
	t.end("gather")
	p.audited = p.audits(s.audit, step)
	err = s.encodeQueries(ctx, p, batch, terms, t, ready)
	t.end("query")
	p.peers(true)
	werr := s.sums.Wait()
	p.peers(false)
	if err == nil {
		err = werr
	}
	t.end("reduce")
	if err != nil {
		return s.unsound(p, terms, ready.Groups, err)
	}
	if found, looked := s.sums.Checked(); looked {
		ready.Sums = &protocol.Sums{Wrong: found.Wrong, Sent: found.Sent, Got: found.Got}
	}
	s.vote = &vote{round: p.Round.Round, step: step, digest: s.computed(t), classes: batch.Classes}
	t.end(protocol.MeasureDigest)
	if p.audited.Empty() {
		return nil
	}
	if len(p.audited.Own[p.rank]) > 0 && !s.sums.InPlace() {
		ready.Recounts = s.own(p, terms, ready.Groups)
	}
	besides, err := s.again(ctx, p, batch, p.audited, p.waves)
	if err != nil {
		return err
	}
	ready.Recounts, ready.Keys = append(ready.Recounts, besides...), checkpoint.Digest(s.keys.ordered)
	t.end("audit")
	return nil
}

// computed is the digest of what a step computed, before it is applied.
func (s *session) computed(t *phases) string {
	sums := s.sums.Vector()
	half := len(sums) / 2 // for two cores
	return checkpoint.DigestString(strings.Join(t.digests(protocol.MeasureDigest, [][]float32{sums[:half], sums[half:], s.keys.ordered}), ""))
}

// encodeQueries runs query forward, loss and backward of this member's units,
// wave by wave (package criterion), and starts the sums before the last
// backward, during which parameters become final and leave.
func (s *session) encodeQueries(ctx context.Context, p *party, batch *input.Step, terms []reduction.Terms, t *phases, ready *protocol.Ready) error {
	step := s.at.step + 1
	units := p.own()
	start := func() { s.sums.Start(ctx, p.ring.background(), step, p.alone()) }
	// Where the sums take the place of the only group, its result is compared as it
	// was before.
	early := s.sums.InPlace() && len(p.audited.Own[p.rank]) > 0
	p.waves = p.loss.Begin(s.losses(batch))
	for wave := range p.waves {
		if err := ctx.Err(); err != nil {
			return err
		}
		q := p.loss.Queries(wave)
		if q != nil {
			if err := s.model.moco.Forward(batch.Query[wave], q, terms[wave].Query); err != nil {
				return fmt.Errorf("%s at step %d: %w", s.model.unit(units[wave]), step, err)
			}
			p.did()
			if err := s.input.StageQueries(wave + 1); err != nil {
				return err
			}
		}
		losses, err := p.loss.Evaluate(ctx, wave)
		if err != nil {
			return fmt.Errorf("the loss of %s at step %d: %w", p.wave(s.model, wave), step, err)
		}
		if wave == p.waves-1 && !early {
			start()
		}
		if q == nil {
			continue
		}
		for j, out := range losses.Groups {
			ready.Groups = append(ready.Groups, protocol.GroupReport{Group: units[wave] + j, Figures: out.Figures})
		}
		t.end("query")
		s.learnProbe(t, batch, units[wave], terms[wave], ready.Groups[len(ready.Groups)-len(losses.Groups):])
		t.end(protocol.MeasureProbe)
		if err := s.backward(losses.DQ, terms[wave].Grads, wave == len(units)-1, len(p.audited.Again[p.rank]) == 0); err != nil {
			return fmt.Errorf("%s at step %d: %w", s.model.unit(units[wave]), step, err)
		}
		p.did()
	}
	if early {
		ready.Recounts = s.own(p, terms, ready.Groups)
	}
	if p.waves == 0 || early { // without a unit, nobody asks it for losses
		start()
	}
	s.sums.Complete()
	return nil
}

// losses is what the losses of the step in hand have in common.
func (s *session) losses(batch *input.Step) criterion.Step {
	return criterion.Step{
		Number: s.at.step + 1, Mix: s.input.Epoch(s.at.cursor) >= s.job.MoCHiWarmup,
		Keys: s.keys.ordered, Samples: batch.Samples, Labels: batch.Labels,
	}
}

// backward takes the gradients of a unit's queries backward. During the last
// one, parameters become final; if no more of this step's images follow, the
// next step's first are on their way by then.
func (s *session) backward(dq, grads []float32, last, ahead bool) error {
	if !last {
		return s.model.moco.Backward(dq, grads, nil)
	}
	if ahead {
		if err := s.input.StageAhead(); err != nil {
			return err
		}
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
		case recount:
			if err := r.recalled(ctx, *m.Recall); err != nil {
				return protocol.Commit{}, err
			}
		}
	}
}

// finish applies the commit of the step that was voted for and reports the state
// it leads to, with what was measured of the step since its vote.
func (r *Replica) finish(ctx context.Context, c protocol.Commit, t *phases) error {
	s := r.session
	if c.Digest != s.vote.digest {
		s.forget()
		return &stateError{fmt.Sprintf("step %d was committed with gradients %s, this replica holds others; it needs the state of a peer", c.Step, c.Digest)}
	}
	r.progress.phase(c.Round, c.Step, protocol.PhaseApplying)
	if err := s.apply(c, t); err != nil {
		return err
	}
	t.end(protocol.MeasureApply)
	applied := s.applied(c, t)
	if r.past.add(c); c.Checkpoint {
		r.past.save(protocol.Position{Step: c.Step, Digest: applied.StateDigest, Shards: applied.Shards})
	}
	return r.send(ctx, protocol.Message{Applied: applied})
}
