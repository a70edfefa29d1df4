package replica

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
	"mochi/model/loss"
	"mochi/replica/checkpoint"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// audits is which groups are computed twice in a step of this round, and by whom.
// In a trial all members compute the groups in question, and there is no step.
func (p *party) audits(rule audit.Rule, step int64) audit.Deal {
	if len(p.Trial) > 0 {
		return audit.Trial(p.Trial, len(p.Members))
	}
	return rule.Deal(step, p.Members)
}

// besides are the first samples of the units that this member computes besides
// its own in a step.
func (s *session) besides(p *party, step int64) []int {
	var first []int
	if len(p.Trial) > 0 && step != p.Step {
		return nil
	}
	again := p.audits(s.audit, step).Again[p.rank]
	for i := 0; i < len(again); i += s.model.atOnce {
		first = append(first, again[i]*s.job.BNGroup)
	}
	return first
}

// trial is a round without a step: this member computes the groups on which
// members differ, says what it got, and waits for what the coordinator makes of
// it. It changes nothing but scratch.
func (r *Replica) trial(ctx, attempt context.Context, p *party) error {
	s := r.session
	t := newPhases()
	p.phase(p.Round.Round, s.at.step+1, protocol.PhaseComputing)
	ready := protocol.Ready{Round: p.Round.Round, Step: s.at.step + 1, Phases: t.ms}
	if err := s.tryAgain(attempt, p, &ready); err != nil {
		return err
	}
	t.end("audit")
	p.phase(ready.Round, ready.Step, protocol.PhaseReady)
	if err := r.send(ctx, protocol.Message{Ready: &ready}); err != nil {
		return err
	}
	_, err := r.awaitCommit(ctx, noStep)
	return err
}

// noStep is a step that no commit is of.
const noStep = -1

// tryAgain computes the groups of a trial into a vote.
func (s *session) tryAgain(ctx context.Context, p *party, ready *protocol.Ready) error {
	step := s.at.step + 1
	batch, err := s.input.Next(ctx, s.at.step, s.at.cursor)
	if err != nil {
		return fmt.Errorf("load the batch of step %d: %w", step, err)
	}
	defer s.input.Release()
	p.did()
	if err := s.objective.encodeKeys(ctx, p, batch, s.sums.Begin(len(p.own()))); err != nil {
		return err
	}
	if err := s.objective.gather(ctx, p, batch); err != nil {
		return err
	}
	ready.Keys = checkpoint.Digest(s.keys.ordered)
	ready.Recounts, err = s.again(ctx, p, batch, p.audits(s.audit, step), 0)
	return err
}

// again computes units besides those that are summed, one after the other in the
// memory of one, and returns their groups' results. waves is how many the step's
// criterion had: with a queue that is spread all members take part in these, too.
func (s *session) again(ctx context.Context, p *party, batch *input.Step, deal audit.Deal, waves int) ([]protocol.Recount, error) {
	m := *p.membership
	if err := m.deals(deal.Again, s.model.atOnce); err != nil {
		return nil, &dealError{err}
	}
	units, step := m.own(), s.at.step+1
	if deal.Empty() || len(units) == 0 && !p.Spread() {
		return nil, nil
	}
	criterion := s.objective.criterion(&party{membership: &m, progress: p.progress, ring: p.ring}, waves)
	terms, keys := s.sums.Scratch(), make([]float32, s.model.atOnce*s.job.BNGroup*keyWidth(s.job))
	var list []protocol.Recount
	for wave := range criterion.Begin(s.losses(batch)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q := criterion.Queries(wave)
		if q != nil {
			err := errors.Join(
				s.objective.keysAgain(batch.KeyAgain[wave], keys, terms.Key),
				s.model.moco.Forward(batch.QueryAgain[wave], q, terms.Query))
			if err != nil {
				return nil, fmt.Errorf("audit of %s at step %d: %w", s.model.unit(units[wave]), step, err)
			}
		}
		losses, err := criterion.Evaluate(ctx, wave)
		noNumber := errors.Is(err, loss.ErrNotFinite)
		if err == nil && q != nil {
			err = s.model.moco.Backward(losses.DQ, terms.Grads, nil)
		}
		if err != nil && !noNumber {
			return nil, fmt.Errorf("audit of %s at step %d: %w", (&party{membership: &m}).wave(s.model, wave), step, err)
		}
		if q == nil {
			continue
		}
		reports := make([]protocol.GroupReport, s.model.atOnce)
		for j := range reports {
			reports[j].Group = units[wave] + j
			if !noNumber {
				reports[j].Figures = losses.Groups[j].Figures
			}
		}
		s.learnProbe(newPhases(), batch, units[wave], terms, reports)
		list = append(list, results(terms, keys, reports, noNumber)...)
		p.did()
	}
	return list, nil
}

// notFiniteError is a step that came to a NaN or an infinity: the training
// diverged, or one member computes wrongly, which the coordinator finds out by own:
// what of this member's groups is not finite, given these keys of the batch.
type notFiniteError struct {
	error
	own  []protocol.Recount
	keys string
}

func (e *notFiniteError) Unwrap() error { return e.error }

// soundKeys says whether the keys that this member has encoded are numbers: if
// they are not, nobody's losses are, once they are gathered.
func (s *session) soundKeys(p *party, terms []reduction.Terms) error {
	at, n := p.keysAt(), s.model.atOnce
	size := n * s.job.BNGroup * s.job.Dim
	for i, first := range p.own() {
		if keys := s.keys.of(i, at, size); !finite(keys, terms[i].Key) {
			reports := make([]protocol.GroupReport, n)
			for j := range reports {
				reports[j].Group = first + j
			}
			var own []protocol.Recount
			for _, r := range results(terms[i], keys, reports, true) {
				if r.Key == protocol.NotFinite {
					own = append(own, protocol.Recount{Group: r.Group, Key: r.Key})
				}
			}
			return &notFiniteError{fmt.Errorf("the keys of %s are not finite: training diverged; lower --lr, or check the data", s.model.unit(first)), own, ""}
		}
	}
	return nil
}

// unsound is err, with those of this member's groups that are not finite where
// that is what it is about. reports are those of the units whose loss was computed.
func (s *session) unsound(p *party, terms []reduction.Terms, reports []protocol.GroupReport, err error) error {
	if !errors.As(err, new(*reduction.DivergedError)) && !errors.Is(err, loss.ErrNotFinite) || errors.As(err, new(*notFiniteError)) {
		return err
	}
	e := &notFiniteError{err, nil, checkpoint.Digest(s.keys.ordered)}
	n := s.model.atOnce
	if errors.Is(err, loss.ErrNotFinite) { // of the unit after those
		if i := len(reports) / n; i < len(p.own()) {
			for j := range n {
				e.own = append(e.own, protocol.Recount{Group: p.own()[i] + j, Query: protocol.NotFinite})
			}
		}
		return e
	}
	for _, r := range s.own(p, terms, reports) {
		if r.Query == protocol.NotFinite {
			e.own = append(e.own, r)
		}
	}
	return e
}

// own are the results of this member's groups, of a step that it has computed.
func (s *session) own(p *party, terms []reduction.Terms, reports []protocol.GroupReport) (list []protocol.Recount) {
	at, n := p.keysAt(), s.model.atOnce
	size := n * s.job.BNGroup * s.job.Dim
	for i := range p.own() {
		list = append(list, results(terms[i], s.keys.of(i, at, size), reports[i*n:(i+1)*n], false)...)
	}
	return list
}

// results are the digests of all that the groups of a unit leave: gradients and
// statistics [n, …], keys [n·g, d], and the figures. noNumber: the loss is none, so
// that there are no gradients.
func results(terms reduction.Terms, keys []float32, reports []protocol.GroupReport, noNumber bool) []protocol.Recount {
	list := make([]protocol.Recount, len(reports))
	for j, report := range reports {
		row := func(x []float32) []float32 {
			stride := len(x) / len(reports)
			return x[j*stride : (j+1)*stride]
		}
		r := protocol.Recount{Group: report.Group, Key: digestOf("", row(terms.Key), row(keys)), Query: protocol.NotFinite}
		if !noNumber {
			r.Query = digestOf(fmt.Sprint(report.Figures), row(terms.Grads), row(terms.Query), row(terms.Besides))
		}
		list[j] = r
	}
	return list
}

// digestOf is the digest of figures, in words, and vectors; protocol.NotFinite if
// not all of their values are finite.
func digestOf(figures string, vectors ...[]float32) string {
	if !finite(vectors...) {
		return protocol.NotFinite
	}
	return checkpoint.DigestString(figures + checkpoint.Digest(vectors...))
}

// finite says whether all values are.
func finite(vectors ...[]float32) bool {
	return !slices.ContainsFunc(vectors, func(v []float32) bool { return !(allreduce.MaxAbs(v) <= math.MaxFloat32) })
}
