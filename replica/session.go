package replica

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
	"mochi/replica/queue"
)

// session is what a replica builds once it knows the job: the model, the
// queue, the input, and where the training stands. It outlives rounds.
type session struct {
	cfg     config.Job
	yaml    string // cfg, for checkpoints
	net     *network.Network
	engine  engine.Engine
	state   engine.State
	moco    *model.MoCo
	atOnce  int // groups that one run of its programs computes
	queue   *queue.Queue
	hold    []int // shards held once the round has committed a step
	data    data.Dataset
	sampler *sampler.Sampler
	loader  *data.Loader

	ready   bool  // the state is initialised, restored or received
	step    int64 // commits applied
	cursor  int64 // samples committed
	pending *pending

	reduce  *reduction
	stage   stage
	applyMS float64     // of the last commit
	staged  *data.Batch // of the next step, whose first keys are on their way to a device; nil: none

	upload sync.WaitGroup // at most one checkpoint in flight
}

// pending is a step that was voted for and not yet committed: all that is
// needed to apply it. Its vectors are the reduction's and the stage's, valid
// until the next step starts.
type pending struct {
	round, step int64
	digest      string
	labels      []int32
}

// stage holds a step's keys and group results; allocated once per session.
type stage struct {
	shuffled []float32 // [B, d] keys in the order they were computed, by rank
	keys     []float32 // [B, d] keys in global-batch order
}

func newSession(rc Config, cfg config.Job) (*session, error) {
	if cfg.StrictData {
		if err := rc.Data.Strict(); err != nil {
			return nil, err
		}
	}
	net, err := cfg.Network()
	if err != nil {
		return nil, fmt.Errorf("build the network: %w", err)
	}
	recipe, err := augment.New(cfg.Recipe, cfg.ImageSize)
	if err != nil {
		return nil, err
	}
	yaml, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	eng, err := rc.Engine(engine.Precision(cfg.Precision))
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	moco, err := model.New(eng, net, ModelConfig(cfg))
	if err != nil {
		eng.Close()
		return nil, err
	}
	s := &session{
		cfg: cfg, yaml: string(yaml), net: net, engine: eng, state: moco.State(), moco: moco, atOnce: moco.GroupsAtOnce(),
		queue:   queue.NewEmpty(cfg.Queue, cfg.Dim, cfg.QueueShards, QueueStorage(cfg)),
		data:    rc.Data.Train,
		sampler: sampler.New(rc.Data.Train.Len(), cfg.Seed),
		loader: data.NewLoader(rc.Data.Train, recipe, data.LoaderConfig{
			Seed: cfg.Seed, Workers: rc.Workers, Depth: prefetch, Strict: cfg.StrictData, BesideEngine: true, Log: rc.Log,
		}),
		reduce: newReduction(net, cfg.Wire == "fp32", cfg.Groups(), moco.GroupsAtOnce(), eng.Info().Threads),
	}
	if s.atOnce < cfg.GroupsAtOnce {
		rc.Log.Warn("the engine computes one BatchNorm group at a time; --groups-at-once only makes the unit of work larger", "engine", eng.Info().Name)
	}
	s.stage.shuffled = make([]float32, cfg.Batch*cfg.Dim)
	s.stage.keys = make([]float32, cfg.Batch*cfg.Dim)
	return s, nil
}

// ModelConfig is the part of a job's configuration that the method needs.
func ModelConfig(c config.Job) model.Config {
	return model.Config{
		BNGroup: c.BNGroup, GroupsAtOnce: c.GroupsAtOnce,
		Queue: c.Queue, LossBatch: c.Batch,
		Loss: loss.Config{
			N: c.MoCHi.N, S: c.MoCHi.S, S2: c.MoCHi.S2,
			Temperature: c.Temperature, Shards: c.QueueShards, Seed: c.Seed,
		},
		Momentum:    c.Momentum,
		SGDMomentum: c.SGDMomentum,
		WeightDecay: c.WeightDecay,
		LARS:        c.Optimizer == "lars",
	}
}

// QueueStorage is how a job's queue keeps its keys.
func QueueStorage(c config.Job) queue.Storage {
	if c.Storage() == "bf16" {
		return queue.BF16
	}
	return queue.FP32
}

func (s *session) close() {
	s.upload.Wait()
	s.unstage() // else the loader's memory could still be read
	s.loader.Close()
	s.moco.Close()
	s.engine.Close()
}

// initialise starts from the configuration's seed.
func (s *session) initialise() {
	s.moco.InitState(s.cfg.Seed)
	s.queue.Init(s.cfg.Seed)
	s.step, s.cursor, s.pending, s.ready = 0, 0, nil, true
}

// position says what this session holds, nil when nothing.
func (s *session) position() *protocol.Position {
	if !s.ready {
		return nil
	}
	s.queue.Audit(math.MaxInt) // it may be long before the next comparison
	shards := s.queue.Digests()
	for _, v := range s.queue.Damaged() {
		shards[v] = ""
	}
	return &protocol.Position{Step: s.step, Digest: s.digest(), Shards: shards}
}

// digest covers everything that must be equal on all replicas: all but the
// queue, whose shards have their own.
func (s *session) digest() string {
	_, all := s.digests()
	return all
}

// digests are that of the query encoder's parameters, and digest.
func (s *session) digests() (parameters, all string) {
	vectors := make([][]float32, len(engine.Vectors))
	for i, v := range engine.Vectors {
		vectors[i] = s.state.Host(v)
	}
	each := checkpoint.Digests(vectors...)
	return each[slices.Index(engine.Vectors, engine.QueryParams)], checkpoint.DigestString(strings.Join(each, ""))
}

// pendingDigest covers what a step computed, before it is applied.
func (s *session) pendingDigest() string {
	half := len(s.reduce.sum) / 2 // for two cores
	return checkpoint.DigestString(strings.Join(checkpoint.Digests(s.reduce.sum[:half], s.reduce.sum[half:], s.stage.keys), ""))
}

// apply makes the pending step final: optimiser, momentum encoder, BatchNorm
// statistics, queue, cursor.
func (s *session) apply(c protocol.Commit) error {
	v := s.reduce
	s.release()
	if err := s.moco.Apply(v.grads(), v.queryStatistics(), v.keyStatistics(), c.LR); err != nil {
		return fmt.Errorf("apply step %d: %w", c.Step, err)
	}
	if err := s.queue.Enqueue(s.stage.keys, s.pending.labels); err != nil {
		return fmt.Errorf("enqueue the keys of step %d: %w", c.Step, err)
	}
	s.step = c.Step
	s.cursor = c.Cursor + int64(c.Batch)
	s.pending = nil
	return nil
}

// snapshot is the state as a checkpoint, with the queue as given: keys [K, d]
// and labels [K].
func (s *session) snapshot(keys []float32, labels []int32) *checkpoint.State {
	return &checkpoint.State{
		Arch: s.cfg.Arch, Step: s.step, Epoch: s.sampler.Epoch(s.cursor), Cursor: s.cursor,
		Seed: s.cfg.Seed, Config: s.yaml, Net: s.net,
		QueryParams: s.state.Host(engine.QueryParams), KeyParams: s.state.Host(engine.KeyParams),
		Momentum:     s.state.Host(engine.Momentum),
		QueryBuffers: s.state.Host(engine.QueryBuffers), KeyBuffers: s.state.Host(engine.KeyBuffers),
		K: s.cfg.Queue, Dim: s.cfg.Dim,
		Queue: keys, QueueLabels: labels, QueuePtr: s.queue.Ptr(), QueueFilled: s.queue.Filled(),
	}
}

// withoutQueue is the state for a joiner that gets its shards on their own.
// The format wants a queue: it has one key.
func (s *session) withoutQueue() *checkpoint.State {
	c := s.snapshot(make([]float32, s.cfg.Dim), []int32{queue.Unlabelled})
	c.K, c.QueuePtr = 1, 0
	return c
}

// restore replaces the whole state. A queue of another length becomes one of
// this length (queue.Resized).
func (s *session) restore(c *checkpoint.State) error {
	if err := c.Matches(s.net, c.K, s.cfg.Dim); err != nil {
		return err
	}
	saved := queue.Saved{Keys: c.Queue, Labels: c.QueueLabels, Ptr: c.QueuePtr, Filled: c.QueueFilled}
	if c.K != s.cfg.Queue {
		saved = saved.Resized(s.cfg.Queue, s.cfg.Dim, s.cfg.Seed)
	}
	if err := s.queue.Set(saved.Keys, saved.Labels, saved.Ptr, saved.Filled); err != nil {
		return err
	}
	s.restoreModel(c)
	return nil
}

// restoreModel replaces all but the queue.
func (s *session) restoreModel(c *checkpoint.State) {
	s.state.Set(engine.QueryParams, c.QueryParams)
	s.state.Set(engine.KeyParams, c.KeyParams)
	s.state.Set(engine.Momentum, c.Momentum)
	s.state.Set(engine.QueryBuffers, c.QueryBuffers)
	s.state.Set(engine.KeyBuffers, c.KeyBuffers)
	s.step, s.cursor, s.pending, s.ready = c.Step, c.Cursor, nil, true
}

// negatives are the shards held, as the loss wants them.
func (s *session) negatives() []loss.Shard { return AppendShards(nil, s.queue, s.cfg.Oracle) }

// AppendShards appends the shards that a queue holds, as the loss wants them:
// with their classes where the class oracle is on. They are the queue's, as
// queue.Queue.Held.
func AppendShards(dst []loss.Shard, q *queue.Queue, oracle bool) []loss.Shard {
	for _, h := range q.Held() {
		shard := loss.Shard{Index: h.Index, Keys: h.Keys, BF16: h.BF16, Sums: h.Sums()}
		if oracle {
			shard.Labels = h.Labels
		}
		dst = append(dst, shard)
	}
	return dst
}
