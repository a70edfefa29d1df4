package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/model"
)

// Tags of the collectives of one step beside the buckets of the reduction.
const (
	keysTag     = 1 << 24
	recoveryTag = 1 << 25
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

// step runs one step up to and including its commit. ctx ends when the step
// is pointless; the commit itself is awaited without it, in the inbox's order.
func (r *Replica) step(ctx context.Context, m *membership) (protocol.Commit, error) {
	s := r.session
	step := s.step + 1
	t := newPhases()
	r.setPhase(m.Round.Round, step, "computing")
	groups, err := s.compute(ctx, m, step, t)
	if err != nil {
		return protocol.Commit{}, err
	}
	ready := protocol.Ready{
		Round: m.Round.Round, Step: step, Digest: s.pending.digest, Groups: groups,
		BusyMS: t.ms["key_forward"] + t.ms["query"], Phases: t.ms,
	}
	r.setPhase(m.Round.Round, step, protocol.PhaseReady)
	if err := r.send(ctx, protocol.Message{Ready: &ready}); err != nil {
		return protocol.Commit{}, err
	}
	commit, err := r.awaitCommit(m, step)
	if err != nil {
		return protocol.Commit{}, err
	}
	return commit, r.finish(ctx, m, commit)
}

// compute is a step up to the vote: keys, loss, gradients, all-reduce. It
// changes nothing but scratch; the result is s.pending.
func (s *session) compute(ctx context.Context, m *membership, step int64, t *phases) ([]protocol.GroupReport, error) {
	s.pending = nil
	if s.applyMS > 0 {
		t.ms["apply"] = s.applyMS // of the step before: this one's is not known when it votes
	}
	batch, _, err := s.loader.Next(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the batch of step %d: %w", step, err)
	}
	defer batch.Release()
	if err := s.took(batch); err != nil {
		return nil, err
	}
	defer s.moco.StageQueries(nil) // before Release, should the step end early
	if err := s.loader.Submit(s.request(m, prefetch)); err != nil {
		return nil, err
	}
	t.end("load")

	local := s.reduce.shares(len(m.runs))
	if len(batch.Query) > 0 {
		if err := s.moco.StageQueries(batch.Query[0]); err != nil {
			return nil, err
		}
	}
	if err := s.keys(ctx, m, step, batch.Key, local, t); err != nil {
		return nil, err
	}

	// The last local backward makes parameters final; their buckets leave while
	// it runs.
	final := make(chan int, len(s.reduce.buckets))
	var reduced chan error
	reduce := func() {
		reduced = make(chan error, 1)
		go func() { reduced <- s.reduce.run(ctx, m.ring, step, local, final, len(m.counts) == 1) }()
	}
	var reports []protocol.GroupReport
	if m.Holders == nil {
		reduce()
		reports, err = s.queries(ctx, m, step, batch.Query, local, final)
	} else {
		reports, err = s.exchanged(ctx, m, step, batch.Query, local, final, reduce)
	}
	close(final)
	t.end("query")
	if reduced != nil {
		if rerr := <-reduced; err == nil {
			err = rerr
		}
	}
	t.end("reduce")
	if err != nil {
		return nil, err
	}
	s.pending = &pending{
		round: m.Round.Round, step: step,
		digest: s.pendingDigest(),
		labels: s.labels(),
	}
	t.end("digest")
	return reports, nil
}

// keys encodes the key views of this member's groups and gathers everybody's:
// afterwards s.stage.keys holds the keys of the whole batch in global order.
func (s *session) keys(ctx context.Context, m *membership, step int64, images [][]float32, local []share, t *phases) error {
	size := s.atOnce * s.cfg.BNGroup * s.cfg.Dim
	at := 0
	for _, n := range m.counts[:m.rank] {
		at += n
	}
	for i, first := range m.runs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.moco.Keys(images[i], s.stage.shuffled[at:at+size], local[i].key); err != nil {
			return fmt.Errorf("key forward of %s at step %d: %w", s.groups(first), step, err)
		}
		at += size
	}
	t.end("key_forward")
	tag := allreduce.Tag{Step: uint64(step), Bucket: keysTag}
	if err := m.ring.AllGather(ctx, tag, s.stage.shuffled, m.counts); err != nil {
		return fmt.Errorf("gather the keys of step %d: %w", step, err)
	}
	// Undo ShuffleBN: position i of the permuted batch is sample perm[i].
	perm := s.sampler.Shuffle(s.cursor, s.cfg.Batch)
	d := s.cfg.Dim
	for slot, group := range m.order {
		for i := range s.cfg.BNGroup {
			from := slot*s.cfg.BNGroup + i
			to := perm[group*s.cfg.BNGroup+i]
			copy(s.stage.keys[to*d:(to+1)*d], s.stage.shuffled[from*d:(from+1)*d])
		}
	}
	t.end("gather")
	return nil
}

// queries runs query forward, loss and backward of this member's groups and
// announces on final which buckets are complete.
func (s *session) queries(ctx context.Context, m *membership, step int64, images [][]float32, local []share, final chan<- int) ([]protocol.GroupReport, error) {
	epoch := s.sampler.Epoch(s.cursor)
	d := s.cfg.Dim
	shards := s.negatives()
	reports := make([]protocol.GroupReport, 0, len(m.groups))
	for i, first := range m.runs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		lo, hi := s.rows(first)
		in := model.StepInput{
			Images:    images[i],
			Positives: s.stage.keys[lo*d : hi*d],
			Shards:    shards,
			Step:      step,
			BatchSize: s.cfg.Batch,
			Mix:       epoch >= s.cfg.MoCHiWarmup,
		}
		in.Samples, in.Labels = s.samples(first)
		var ready func(int)
		if i == len(m.runs)-1 {
			ready = s.reduce.countdown(final)
			if err := s.ahead(); err != nil {
				return nil, err
			}
		} else {
			in.Next = images[i+1]
		}
		left, err := s.moco.Step(in, local[i].grads, local[i].query, ready)
		if err != nil {
			return nil, fmt.Errorf("%s at step %d: %w", s.groups(first), step, err)
		}
		for j, report := range left {
			reports = append(reports, protocol.GroupReport{Group: first + j, Figures: report.Figures})
		}
	}
	s.announce(m, final)
	return reports, nil
}

// groups names those of a run, for messages.
func (s *session) groups(first int) string {
	if s.atOnce == 1 {
		return fmt.Sprintf("group %d", first)
	}
	return fmt.Sprintf("groups %d to %d", first, first+s.atOnce-1)
}

// samples are those of a run, and with the class oracle their classes.
func (s *session) samples(first int) (samples []int, labels []int32) {
	lo, hi := s.rows(first)
	for _, ref := range s.sampler.Batch(s.cursor, s.cfg.Batch)[lo:hi] {
		samples = append(samples, ref.Sample)
		if s.cfg.Oracle {
			labels = append(labels, s.data.Label(ref.Sample))
		}
	}
	return samples, labels
}

// announce says that the statistics are final, and of a member without groups
// all there is.
func (s *session) announce(m *membership, final chan<- int) {
	if len(m.groups) == 0 {
		for i := range s.reduce.buckets {
			final <- i
		}
		return
	}
	final <- len(s.reduce.buckets) - 1
}

// countdown returns a callback for final parameters that announces each
// bucket once all its parameters are.
func (r *reduction) countdown(final chan<- int) func(param int) {
	left := make([]int, len(r.buckets))
	for i, b := range r.buckets {
		left[i] = b.params
	}
	return func(param int) {
		i := r.ofParam[param]
		if left[i]--; left[i] == 0 {
			final <- i
		}
	}
}

// labels are the classes of the batch, −1 where unknown, for the queue.
func (s *session) labels() []int32 {
	refs := s.sampler.Batch(s.cursor, s.cfg.Batch)
	labels := make([]int32, len(refs))
	for i, ref := range refs {
		labels[i] = s.data.Label(ref.Sample)
	}
	return labels
}

// awaitCommit waits, in the order of the inbox, for this step's commit or for
// what replaces it.
func (r *Replica) awaitCommit(m *membership, step int64) (protocol.Commit, error) {
	for {
		msg, err := r.inbox.next(m.run)
		switch {
		case err != nil:
			return protocol.Commit{}, err
		case msg.Commit != nil && msg.Commit.Step == step:
			return *msg.Commit, nil
		case endsStep(msg):
			r.inbox.unread(msg)
			return protocol.Commit{}, errSuperseded
		case msg.Welcome != nil:
			r.setInstance(msg.Welcome.Instance)
		case msg.Again != nil:
			if err := r.hello(m.run); err != nil {
				return protocol.Commit{}, err
			}
		}
	}
}

// finish applies a commit and reports the state it leads to.
func (r *Replica) finish(ctx context.Context, m *membership, c protocol.Commit) error {
	s := r.session
	if c.Digest != s.pending.digest {
		s.ready, s.pending = false, nil
		return &stateError{fmt.Sprintf("step %d was committed with gradients %s, this replica holds others; it needs the state of a peer", c.Step, c.Digest)}
	}
	start := time.Now()
	if err := s.apply(c); err != nil {
		return err
	}
	s.applyMS = time.Since(start).Seconds() * 1e3
	s.queue.Audit(auditBytes)
	parameters, all := s.digests()
	applied := protocol.Applied{
		Round: c.Round, Step: c.Step,
		Digest:      parameters,
		StateDigest: all,
		Shards:      s.queue.Digests(),
		Damaged:     s.queue.Damaged(),
	}
	if err := r.send(m.run, protocol.Message{Applied: &applied}); err != nil {
		return err
	}
	if c.Checkpoint && (m.rank == 0 || m.Holders != nil) {
		return r.uploadCheckpoint(ctx, m)
	}
	return nil
}

// lateCommit handles a commit outside a step: one that a restarted
// coordinator found in its log and that this replica voted for.
func (r *Replica) lateCommit(ctx context.Context, c protocol.Commit) error {
	s := r.session
	if s.pending == nil || s.pending.step != c.Step {
		return nil
	}
	err := r.finish(ctx, &membership{run: ctx, rank: -1}, c)
	if errors.As(err, new(*stateError)) {
		return r.hello(ctx)
	}
	return err
}
