package replica

import (
	"errors"
	"fmt"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
	"mochi/coordinator/protocol/config"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/input"
	"mochi/replica/queue"
	"mochi/replica/reduction"
)

// session is what a replica builds once it knows the job, in parts that own what
// they need. It outlives rounds.
type session struct {
	job       config.Job
	data      string // digest of the data set
	shards    string // content of its shards
	yaml      string // job, for checkpoints
	model     *encoders
	queue     *negatives
	input     *input.Input
	sums      *reduction.Reduction
	keys      keys
	objective objective
	at        position
	vote      *vote // nil: none that waits for its commit
	audit     audit.Rule
}

// position is where the training stands.
type position struct {
	ready  bool  // there is a state: initialised, restored or received
	step   int64 // commits applied
	cursor int64 // samples committed
}

// vote is a step that was voted for and not yet committed: all that is needed to
// apply it. The vectors are the session's sums and keys, valid until the next
// step starts.
type vote struct {
	round, step int64
	digest      string
	classes     []int32 // [B] of the samples, for the queue
}

func newSession(rc Config, job config.Job) (*session, error) {
	if why := rc.Data.NoOracle(); job.Oracle && why != "" {
		return nil, fmt.Errorf("--oracle needs labelled data of two classes or more, and %s", why)
	}
	if job.StrictData {
		if err := rc.Data.Strict(); err != nil {
			return nil, err
		}
	}
	recipe, err := augment.New(job.Recipe, job.ImageSize)
	if err != nil {
		return nil, err
	}
	yaml, err := job.YAML()
	if err != nil {
		return nil, err
	}
	if is := rc.Data.Train.Classes(); (job.Learns() || job.Labels > 0) && (is != job.Labels || is < 1) {
		return nil, fmt.Errorf("the job learns from the labels of %d classes, the training data here has %d", job.Labels, is)
	}
	model, err := newEncoders(job, rc)
	if err != nil {
		return nil, err
	}
	if model.atOnce < job.GroupsAtOnce {
		rc.Log.Warn("the engine computes one BatchNorm group at a time; --groups-at-once only makes the unit of work larger", "engine", model.engine.Info().Name)
	}
	rc.Data.Limit(job.ImagePixels(), job.ImageBytes())
	var images input.Source
	if rc.Images != nil {
		images = rc.Images(job)
	} else {
		images = data.NewLoader(rc.Data.Train, recipe, data.LoaderConfig{
			Seed: job.Seed, Workers: rc.Workers, Depth: input.Prefetch, Strict: job.StrictData, SameClass: job.Oracle || job.Supervised, BesideEngine: true, Log: rc.Log,
		})
	}
	s := &session{
		job: job, yaml: string(yaml), data: rc.Data.Info.Digest, shards: rc.Data.Info.Shards, model: model, queue: newNegatives(job),
		input: input.New(input.Config{
			Seed: job.Seed, Batch: job.Batch, Unit: model.atOnce * job.BNGroup, Labels: job.Oracle || job.Supervised, NoKeys: job.Supervised,
		}, rc.Data.Train, images, model.moco),
		sums: reduction.New(model.net, reduction.Config{
			Besides: model.probe.size(),
			Exact:   job.Wire == "fp32", Groups: job.Groups(), AtOnce: model.atOnce, Threads: model.engine.Info().Threads,
			Check: job.Audit > 0,
		}),
		keys:  newKeys(job.Batch, keyWidth(job)),
		audit: audit.RuleOf(job),
	}
	s.objective = newObjective(s)
	return s, nil
}

// close ends the input, whose images the engine may still read, before the
// engine.
func (s *session) close() error {
	return errors.Join(s.input.Close(), s.model.close())
}

// initialise starts from the configuration's seed.
func (s *session) initialise() {
	s.model.moco.InitState(s.job.Seed)
	s.model.probe.reset()
	s.queue.Init(s.job.Seed)
	s.at, s.vote = position{ready: true}, nil
}

// position says what this session holds, nil when nothing.
func (s *session) position() *protocol.Position {
	if !s.at.ready {
		return nil
	}
	shards := s.queue.digests()
	_, all := s.model.digests(newPhases())
	return &protocol.Position{Step: s.at.step, Digest: all, Shards: shards}
}

// forget drops a state that cannot be trusted any more.
func (s *session) forget() { s.at.ready, s.vote = false, nil }

// apply makes the step that was voted for final: optimiser, momentum encoder,
// BatchNorm statistics, queue, cursor, probe.
func (s *session) apply(c protocol.Commit, t *phases) error {
	s.queue.release()
	if err := s.model.moco.Apply(s.sums.Gradients(), s.sums.QueryStatistics(), s.sums.KeyStatistics(), c.LR); err != nil {
		return fmt.Errorf("apply step %d: %w", c.Step, err)
	}
	if err := s.objective.enqueue(s.vote.classes); err != nil {
		return fmt.Errorf("enqueue the keys of step %d: %w", c.Step, err)
	}
	s.model.probe.apply(t, s.sums.Besides(), c.LR)
	s.at.step, s.at.cursor, s.vote = c.Step, c.Cursor+int64(c.Batch), nil
	return nil
}

// applied reads part of the queue again, and all that was changed, to say what
// state a commit has led to.
func (s *session) applied(c protocol.Commit, t *phases) *protocol.Applied {
	parameters, all := s.model.digests(t, func() { s.queue.Audit(auditBytes) })
	t.end(protocol.MeasureApplied)
	return &protocol.Applied{
		Phases: t.ms, CPU: t.cpu,
		Round: c.Round, Step: c.Step,
		Digest:      parameters,
		StateDigest: all,
		Shards:      s.queue.Digests(),
		Damaged:     s.queue.Damaged(),
	}
}

// snapshot is the state as a checkpoint, with the queue as given: keys [K, d]
// and labels [K].
func (s *session) snapshot(keys []float32, labels []int32) *checkpoint.State {
	c := &checkpoint.State{
		Arch: s.job.Arch, Step: s.at.step, Epoch: s.input.Epoch(s.at.cursor), Cursor: s.at.cursor,
		Seed: s.job.Seed, Config: s.yaml, Data: s.data, Shards: s.shards,
		K: s.job.Queue, Dim: s.job.Dim,
		Queue: keys, QueueLabels: labels, QueuePtr: s.queue.Ptr(), QueueFilled: s.queue.Filled(),
	}
	s.model.fill(c)
	return c
}

// withoutQueue is the state for a joiner that gets its shards on their own.
// The format wants a queue: it has one key.
func (s *session) withoutQueue() *checkpoint.State {
	c := s.snapshot(make([]float32, s.job.Dim), []int32{queue.Unlabelled})
	c.K, c.QueuePtr = 1, 0
	return c
}

// restore replaces the whole state.
func (s *session) restore(c *checkpoint.State) error {
	if err := c.Matches(s.model.net, c.K, s.job.Dim); err != nil {
		return err
	}
	if err := s.queue.restore(c, s.job.Seed); err != nil {
		return err
	}
	s.restoreModel(c)
	return nil
}

// restoreWithoutQueue takes a state withoutQueue, and where the queue stands.
func (s *session) restoreWithoutQueue(c *checkpoint.State, ptr int, filled int64) error {
	if err := c.Matches(s.model.net, 1, s.job.Dim); err != nil {
		return err
	}
	if err := s.queue.SetPosition(ptr, filled); err != nil {
		return err
	}
	s.restoreModel(c)
	return nil
}

// restoreModel replaces all but the queue.
func (s *session) restoreModel(c *checkpoint.State) {
	s.model.restore(c)
	s.at, s.vote = position{ready: true, step: c.Step, cursor: c.Cursor}, nil
}
