// Package model is the method: MoCo-v2 (He et al. 2020, Chen et al. 2020) with
// MoCHi's synthetic hard negatives (Kalantidis et al. 2020). It knows no
// cluster: BatchNorm groups of g samples are its work, one at a time or as many
// as fill a GPU (Config.GroupsAtOnce), and whoever drives it deals groups, adds
// up what they leave and moves the keys.
//
//	One step on a global batch of B samples in G = B/g groups:
//
//	for each group j                                      (any replica, any order)
//	    k_j, stats_k  ← f_k(key views of permuted samples)        Keys   (ShuffleBN: the
//	                                                              permutation is over B)
//	put keys back into sample order                               (caller)
//	for each group j                                      (any replica, any order)
//	    q, stats_q    ← f_q(query views)                          Step
//	    L             ← −log softmax(q·k / q·{k, queue, h, h′})   Step, package loss
//	    grads_j       ← ∂(Σ L / B)/∂θ_q                           Step
//	g, stats          ← Σ_j grads_j, mean_j stats                 (caller: all-reduce)
//	v  ← μ·v + g + λ·θ_q;  θ_q ← θ_q − lr·v                       Apply
//	θ_k ← m·θ_k + (1−m)·θ_q                (parameters only)      Apply
//	BN running statistics ← 0.9·running + 0.1·stats (both)        Apply
//	queue ← keys, oldest out               (after the logits)     (caller)
//
// Everything a group leaves is a pure function of the parameters, the images,
// the keys, the queue and (seed, step, sample indices), and on some engines of
// how many groups are computed at once: the same on every replica with the same
// engine and settings, to the bit.
package model

import (
	"errors"
	"fmt"
	"time"

	"mochi/model/engine"
	"mochi/model/figures"
	"mochi/model/limits"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/model/optim"
)

// Config is the method's settings.
type Config struct {
	BNGroup int // g, samples in a BatchNorm group; default 32
	Queue   int // K, negatives; default 16384
	// GroupsAtOnce is how many groups are computed by one program, where the
	// engine has such (engine.Grouped); 0 = 1.
	GroupsAtOnce int
	// LossBatch is the most queries that Loss takes at once, for a queue whose
	// shards are spread over replicas; 0 = those of GroupsAtOnce.
	LossBatch int
	Loss      loss.Config // N, s, s′, τ, V and the seed of the draws; Threads 0 = the engine's

	Momentum    float64 // m, of the key encoder; default 0.999
	SGDMomentum float64 // μ; default 0.9
	WeightDecay float64 // λ, on every parameter; default 1e-4
	LARS        bool    // layer-wise rates (engine.Update.Trust): weight decay then spares vectors

	// Alone is the query encoder without the method, for a loss that needs neither
	// keys nor a queue: there is no Keys, Step or Loss, and the key encoder is a copy.
	Alone bool
}

// DefaultConfig is the paper's setting for ImageNet-100.
func DefaultConfig() Config {
	return Config{BNGroup: 32, Queue: 16384, Loss: loss.DefaultConfig(),
		Momentum: 0.999, SGDMomentum: 0.9, WeightDecay: 1e-4}
}

// Validate reports every fault.
func (c Config) Validate() error {
	var faults []error
	fault := func(setting, format string, args ...any) {
		faults = append(faults, fmt.Errorf(setting+": "+format, args...))
	}
	limits.BNGroup(c.BNGroup, fault)
	limits.AtLeast(0).Whole("groups-at-once", int64(c.GroupsAtOnce), fault)
	limits.Momentum(c.Momentum, fault)
	limits.SGDMomentum(c.SGDMomentum, fault)
	limits.WeightDecay(c.WeightDecay, fault)
	return errors.Join(append(faults, c.Loss.Validate(c.Queue))...)
}

// MoCo is a query and a key encoder, their optimiser and the loss, on one
// engine. It is not safe for concurrent use.
type MoCo struct {
	cfg   Config
	net   *network.Network
	state engine.State
	n     int            // groups of either program
	query engine.Program // f_q, n groups, with backward
	key   engine.Program // f_k, n groups, forward only
	loss  *loss.Loss

	q, dq   []float32     // [n·g, d]
	outputs []loss.Output // [n]
	reports []Report      // [n]
}

// New allocates the pair and compiles both encoders. Parameters are zero until
// InitState, or until they are set through State.
func New(eng engine.Engine, net *network.Network, cfg Config) (_ *MoCo, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if cfg.Loss.Threads == 0 {
		cfg.Loss.Threads = eng.Info().Threads
	}
	m := &MoCo{cfg: cfg, net: net, n: max(1, cfg.GroupsAtOnce)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if !cfg.Alone {
		if m.loss, err = loss.New(cfg.Loss, net.Dim, max(cfg.LossBatch, m.n*cfg.BNGroup), cfg.Queue, eng.Contrast()); err != nil {
			return nil, fmt.Errorf("model: %w", err)
		}
	}
	if m.state, err = eng.NewState(net); err != nil {
		return nil, fmt.Errorf("model: allocate %s: %w", net.Arch, err)
	}
	if err = m.compile(); m.n > 1 && errors.Is(err, engine.ErrUnsupported) {
		m.n = 1
		err = errors.Join(m.closePrograms(), m.compile())
	}
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m.q, m.dq = make([]float32, m.samples()*net.Dim), make([]float32, m.samples()*net.Dim)
	m.outputs, m.reports = make([]loss.Output, m.n), make([]Report, m.n)
	return m, nil
}

// compile makes the programs of n groups.
func (m *MoCo) compile() (err error) {
	program := func(spec engine.Spec) (engine.Program, error) {
		if m.n == 1 {
			return m.state.Compile(spec)
		}
		if together, ok := m.state.(engine.Grouped); ok {
			return together.CompileGroups(spec, m.n)
		}
		return nil, fmt.Errorf("%d groups at once: %w", m.n, engine.ErrUnsupported)
	}
	if !m.cfg.Alone {
		if m.key, err = program(engine.Spec{Encoder: engine.Key, Batch: m.cfg.BNGroup, Mode: engine.Forward}); err != nil {
			return fmt.Errorf("compile the key encoder of %s: %w", m.net.Arch, err)
		}
	}
	if m.query, err = program(engine.Spec{Encoder: engine.Query, Batch: m.cfg.BNGroup, Mode: engine.Train}); err != nil {
		return fmt.Errorf("compile the query encoder of %s: %w", m.net.Arch, err)
	}
	return nil
}

// GroupsAtOnce is n, how many groups Keys, Step, Forward and Backward take:
// Config.GroupsAtOnce, or 1 where the engine cannot. Whoever asked for more then
// calls them for one group after the other.
func (m *MoCo) GroupsAtOnce() int { return m.n }

// samples is the batch of one program: n groups of g.
func (m *MoCo) samples() int { return m.n * m.cfg.BNGroup }

// State holds the parameters: for checkpoints, recovery and evaluation.
func (m *MoCo) State() engine.State { return m.state }

// Network is the encoders' description.
func (m *MoCo) Network() *network.Network { return m.net }

// InitState starts a run: f_q drawn from seed, f_k its copy, momentum zero.
func (m *MoCo) InitState(seed uint64) {
	params, buffers := m.net.Init(seed)
	m.state.Set(engine.QueryParams, params)
	m.state.Set(engine.KeyParams, params)
	m.state.Set(engine.Momentum, make([]float32, len(params)))
	m.state.Set(engine.QueryBuffers, buffers)
	m.state.Set(engine.KeyBuffers, buffers)
}

// Keys encodes the key views of n groups, images [n·g, C, S, S], into keys
// [n·g, d] (rows of length 1) and their batch statistics into stats
// [n, NumBuffers]. For ShuffleBN the groups are of permuted sample indices.
func (m *MoCo) Keys(images, keys, stats []float32) error {
	err := errors.Join(
		m.length("images", images, m.imageSize()),
		m.length("keys", keys, len(m.q)),
		m.length("statistics", stats, m.n*m.net.NumBuffers()))
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if err := m.key.Forward(images, keys); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	m.key.Statistics(stats)
	return nil
}

// StageKeys tells the engine which images the next Keys will be given, so that
// their way to a GPU is hidden behind other work. They must stay as they are
// until then, or until UnstageKeys (engine.Stager).
func (m *MoCo) StageKeys(images []float32) error { return stage(m.key, images) }

// StageQueries is StageKeys for the next Step or Forward.
func (m *MoCo) StageQueries(images []float32) error { return stage(m.query, images) }

// UnstageKeys lets go of what StageKeys staged, if anything: its memory may
// then be used for something else.
func (m *MoCo) UnstageKeys() error { return unstage(m.key) }

// UnstageQueries is UnstageKeys for queries.
func (m *MoCo) UnstageQueries() error { return unstage(m.query) }

func stage(p engine.Program, images []float32) error {
	if images == nil {
		panic("model: no images to stage; Unstage… lets go of what is")
	}
	if s, ok := p.(engine.Stager); ok {
		return s.Stage(images)
	}
	return nil
}

func unstage(p engine.Program) error {
	if s, ok := p.(engine.Stager); ok {
		return s.Unstage()
	}
	return nil
}

// StepInput is the queries of n groups, group after group. Slices belong to the
// caller and are only read.
type StepInput struct {
	Images    []float32    // [n·g, C, S, S] query views
	Positives []float32    // [n·g, d] keys of the same samples, in the same order
	Samples   []int        // [n·g] dataset indices
	Shards    []loss.Shard // all V of the queue, as committed at the step before; with labels for the class oracle
	Step      int64        // of the run; with seed and sample it determines the draws
	BatchSize int          // B, the global batch: gradients are scaled by 1/B
	Mix       bool         // false in the warm-up epochs: no synthetic negatives

	Labels []int32 // [n·g] class oracle, nil = off: see loss.Queries

	Draws *loss.Draws // explicit draws, for tests; nil = from the seed
}

// Report is what one group measured. Figures are sums over its queries and add
// up over groups; figures.Figures.Mean of Samples makes them means.
type Report struct {
	Samples int
	figures.Figures

	// Of the query encoder, the loss, the query encoder; of groups at once an
	// equal share each.
	Forward, Criterion, Backward time.Duration
}

// Add adds another group's report.
func (r *Report) Add(o Report) {
	r.Samples += o.Samples
	r.Figures.Add(o.Figures)
	r.Forward += o.Forward
	r.Criterion += o.Criterion
	r.Backward += o.Backward
}

// Step runs n groups of queries forward, through the loss and backward. Each
// group's part of the mean gradient, ∂(Σ L / B)/∂θ_q, overwrites its row of grads
// [n, NumParams]; its batch statistics overwrite stats [n, NumBuffers]. No
// parameter changes. ready, if not nil, is told each parameter as soon as its
// gradient is final, of all groups (engine.Program.Backward). The reports, one a
// group, are valid until the next Step. loss.ErrNotFinite means divergence.
func (m *MoCo) Step(in StepInput, grads, stats []float32, ready func(param int)) ([]Report, error) {
	if err := m.checkStep(in, grads, stats); err != nil {
		return nil, fmt.Errorf("step %d: %w", in.Step, err)
	}
	start := time.Now()
	if err := m.query.Forward(in.Images, m.q); err != nil {
		return nil, fmt.Errorf("step %d: query forward: %w", in.Step, err)
	}
	m.query.Statistics(stats)
	forward := time.Now()

	rows := len(m.dq) / m.n
	for j := range m.outputs {
		m.outputs[j] = loss.Output{DQ: m.dq[j*rows : (j+1)*rows]}
	}
	err := m.loss.ComputeGroups(loss.Input{
		Queries: loss.Queries{Q: m.q, Samples: in.Samples, Step: in.Step, Mix: in.Mix, Labels: in.Labels, Draws: in.Draws},
		Pos:     in.Positives, Shards: in.Shards, Scale: 1 / float64(in.BatchSize),
	}, m.outputs)
	if err != nil {
		return nil, fmt.Errorf("step %d: %w", in.Step, err)
	}
	criterion := time.Now()

	if err := m.query.Backward(m.dq, grads, ready); err != nil {
		return nil, fmt.Errorf("step %d: query backward: %w", in.Step, err)
	}
	share := func(d time.Duration) time.Duration { return d / time.Duration(m.n) }
	for j, out := range m.outputs {
		m.reports[j] = Report{
			Samples: m.cfg.BNGroup, Figures: out.Figures,
			Forward: share(forward.Sub(start)), Criterion: share(criterion.Sub(forward)), Backward: share(time.Since(criterion)),
		}
	}
	return m.reports, nil
}

// Forward encodes the query views of n groups, images [n·g, C, S, S], into q
// [n·g, d], and their batch statistics into stats [n, NumBuffers]. Forward, Loss
// and Backward are Step for callers that evaluate the loss together with others.
func (m *MoCo) Forward(images, q, stats []float32) error {
	err := errors.Join(
		m.length("images", images, m.imageSize()),
		m.length("queries", q, len(m.q)),
		m.length("statistics", stats, m.n*m.net.NumBuffers()))
	if err == nil {
		err = m.query.Forward(images, q)
	}
	if err != nil {
		return fmt.Errorf("query forward: %w", err)
	}
	m.query.Statistics(stats)
	return nil
}

// Features copies the backbone features of the last Forward or Step, [n·g,
// FeatureDim], into dst.
func (m *MoCo) Features(dst []float32) { m.query.Features(dst) }

// Loss is the model's own loss.
func (m *MoCo) Loss() *loss.Loss { return m.loss }

// Backward takes the gradient dq [n·g, d] of the last Forward's queries and
// overwrites grads [n, NumParams]; ready as in Step.
func (m *MoCo) Backward(dq, grads []float32, ready func(param int)) error {
	err := errors.Join(m.length("query gradients", dq, len(m.dq)), m.length("gradients", grads, m.n*m.net.NumParams()))
	if err == nil {
		err = m.query.Backward(dq, grads, ready)
	}
	if err != nil {
		return fmt.Errorf("query backward: %w", err)
	}
	return nil
}

// Apply commits a step: grads is the sum over all groups of what Step left,
// queryStats and keyStats the means over all groups of the batch statistics (Alone:
// those of the key encoder are not looked at). The arithmetic is engine.Update's.
func (m *MoCo) Apply(grads, queryStats, keyStats []float32, lr float64) error {
	err := errors.Join(
		m.length("gradients", grads, m.net.NumParams()),
		m.length("query statistics", queryStats, m.net.NumBuffers()),
		m.length("key statistics", keyStats, m.net.NumBuffers()))
	if err == nil {
		u := engine.Update{
			Grads: grads, QueryStatistics: queryStats, KeyStatistics: keyStats, LR: float32(lr),
			SGDMomentum: float32(m.cfg.SGDMomentum), WeightDecay: float32(m.cfg.WeightDecay),
			EncoderMomentum: float32(m.cfg.Momentum),
		}
		if m.cfg.Alone {
			u.KeyStatistics, u.EncoderMomentum = queryStats, 0
		}
		if m.cfg.LARS {
			u.Trust = optim.Trust
		}
		err = m.state.Update(u)
	}
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// ScratchBytes is the memory of the loss beside the queue.
func (m *MoCo) ScratchBytes() int64 { return m.loss.ScratchBytes() }

// Close frees the programs, the state and what the loss has on a device; the
// engine stays open.
func (m *MoCo) Close() error {
	err := m.closePrograms()
	if m.loss != nil {
		err = errors.Join(err, m.loss.Close())
	}
	if m.state != nil {
		err = errors.Join(err, m.state.Close())
	}
	return err
}

func (m *MoCo) closePrograms() (err error) {
	for _, p := range []*engine.Program{&m.query, &m.key} {
		if *p != nil {
			err = errors.Join(err, (*p).Close())
			*p = nil
		}
	}
	return err
}

func (m *MoCo) imageSize() int {
	return m.samples() * m.net.Channels * m.net.ImageSize * m.net.ImageSize
}

func (m *MoCo) checkStep(in StepInput, grads, stats []float32) error {
	err := errors.Join(
		m.length("images", in.Images, m.imageSize()),
		m.length("gradients", grads, m.n*m.net.NumParams()),
		m.length("statistics", stats, m.n*m.net.NumBuffers()))
	if len(in.Samples) != m.samples() {
		err = errors.Join(err, fmt.Errorf("%d samples, want %s", len(in.Samples), m.groups()))
	}
	if in.BatchSize < m.samples() {
		err = errors.Join(err, fmt.Errorf("global batch of %d is smaller than %s", in.BatchSize, m.groups()))
	}
	return err
}

// groups is n groups, for messages.
func (m *MoCo) groups() string {
	if m.n == 1 {
		return fmt.Sprintf("a group of %d", m.cfg.BNGroup)
	}
	return fmt.Sprintf("%d groups of %d", m.n, m.cfg.BNGroup)
}

func (m *MoCo) length(name string, x []float32, want int) error {
	if len(x) != want {
		return fmt.Errorf("%s: %d values, want %d", name, len(x), want)
	}
	return nil
}
