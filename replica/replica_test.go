package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
	"mochi/replica/queue"
)

// pictures is a data set in memory: n images of size×size pixels.
type pictures struct{ n, size, bad int }

func (p pictures) Len() int          { return p.n }
func (p pictures) Classes() int      { return 3 }
func (p pictures) Label(i int) int32 { return int32(i % 3) }
func (p pictures) Path(i int) string { return fmt.Sprintf("picture %d", i) }
func (p pictures) Decode(i int, d *data.Decoder) (*augment.Image, error) {
	if p.bad > 0 && i%p.bad == 0 {
		return nil, &data.CorruptError{Path: p.Path(i), Err: errors.New("test")}
	}
	img := d.Image(p.size, p.size)
	for j := range img.Pix {
		img.Pix[j] = uint8((i*131 + j*j*7 + j*(i%5)) % 251)
	}
	return img, nil
}

func testConfig() config.Job {
	c := config.Default()
	c.Arch, c.Head, c.ImageSize, c.Recipe = "resnet8", "linear", 12, "cifar"
	c.Batch, c.BNGroup = 8, 4
	c.Queue, c.QueueShards, c.Dim = 37, 5, 16 // K is no multiple of B
	c.MoCHi, c.MoCHiWarmup = config.MoCHi{N: 9, S: 12, S2: 5}, 1
	c.Temperature, c.Momentum = 0.2, 0.9
	c.LR, c.Epochs = 0.05, 100
	return c
}

// script is a Link played by a test: a coordinator of one replica.
type script struct {
	t        *testing.T
	cfg      config.Job
	steps    int64
	messages chan protocol.Message
	heard    chan protocol.Message // all but heartbeats
	uploads  map[int64][]byte
	source   protocol.Source
	blob     []byte
	first    int64 // commits before the first step
	commits  []protocol.Commit
}

func newScript(t *testing.T, cfg config.Job, steps int64) *script {
	return &script{t: t, cfg: cfg, steps: steps, source: protocol.FromSeed,
		messages: make(chan protocol.Message, 16), heard: make(chan protocol.Message, 16), uploads: map[int64][]byte{}}
}

func (s *script) Messages() <-chan protocol.Message { return s.messages }

func (s *script) Upload(_ context.Context, step int64, state []byte) error {
	s.uploads[step] = append([]byte(nil), state...)
	return nil
}

func (s *script) Download(context.Context, string) ([]byte, error) { return s.blob, nil }

// Send plays the coordinator's part: everything is granted at once.
func (s *script) Send(_ context.Context, m protocol.Message) error {
	batch := int64(s.cfg.Batch)
	switch {
	case m.Hello != nil:
		s.messages <- protocol.Message{Welcome: &protocol.Welcome{Instance: "test", Config: s.cfg}}
		s.messages <- protocol.Message{Round: s.round(1)}
	case m.Ready != nil:
		r := m.Ready
		c := protocol.Commit{
			Step: r.Step, Round: r.Round, Cursor: (r.Step - 1) * batch, Batch: s.cfg.Batch,
			LR: s.cfg.LR, Momentum: s.cfg.Momentum, Digest: r.Digest, Groups: r.Groups,
		}
		if r.Step == s.steps {
			c.Final, c.EndRound, c.Checkpoint = true, true, true
		}
		s.commits = append(s.commits, c)
		s.messages <- protocol.Message{Commit: &c}
	case m.Applied != nil && m.Applied.Step == s.steps:
		s.messages <- protocol.Message{Stop: &protocol.Stop{Reason: "all steps done"}}
	case m.Failed != nil:
		s.messages <- protocol.Message{Stop: &protocol.Stop{Reason: m.Failed.Error, Failed: true}}
	}
	return nil
}

func (s *script) round(n int64) *protocol.Round {
	groups := make([]int, s.cfg.Groups())
	for i := range groups {
		groups[i] = i
	}
	return &protocol.Round{
		Round: n, Step: s.first + 1, Cursor: s.first * int64(s.cfg.Batch), Donor: -1,
		Members: []protocol.Member{{ID: "r", Name: "r", Groups: groups, State: s.source}},
	}
}

// alone is the ring of a world of one.
func alone(_ context.Context, round protocol.Round, _ int, _ string) (Ring, error) {
	return soloRing{}, nil
}

type soloRing struct{}

func (soloRing) AllReduceSum(context.Context, allreduce.Tag, []float32) error     { return nil }
func (soloRing) AllReduceMax(context.Context, allreduce.Tag, []float32) error     { return nil }
func (soloRing) AllGather(context.Context, allreduce.Tag, []float32, []int) error { return nil }
func (soloRing) Broadcast(context.Context, allreduce.Tag, int, []byte) error      { return nil }
func (soloRing) Close() error                                                     { return nil }

func testEngine(t *testing.T) engine.Engine {
	e, err := gorgonia.New(engine.Config{Precision: engine.FP32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// train runs a scripted job and returns its final checkpoint.
func train(t *testing.T, s *script, ds data.Dataset) *checkpoint.State {
	t.Helper()
	r := New(Config{
		ID: "r", Name: "r", Engine: openTestEngine, Link: s, Ring: alone, Workers: 2,
		Data: &data.Set{Train: ds, Info: protocol.Data{Kind: "test", Train: ds.Len()}},
	})
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	blob := s.uploads[s.steps]
	st, err := checkpoint.Read(strings.NewReader(string(blob)))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// simulation is the same training as one plain loop: no prefetching, no
// buckets, no protocol, a queue that is a list.
func simulation(t *testing.T, cfg config.Job, ds data.Dataset, steps int64) *checkpoint.State {
	t.Helper()
	net, err := network.Build(cfg.Arch, network.Options{Channels: 3, ImageSize: cfg.ImageSize, Dim: cfg.Dim, Head: cfg.Head})
	if err != nil {
		t.Fatal(err)
	}
	moco, err := model.New(testEngine(t), net, ModelConfig(cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer moco.Close()
	moco.InitState(cfg.Seed)
	recipe, err := augment.New(cfg.Recipe, cfg.ImageSize)
	if err != nil {
		t.Fatal(err)
	}
	worker := augment.NewWorker(recipe)
	start := queue.New(cfg.Queue, cfg.Dim, cfg.QueueShards)
	start.Init(cfg.Seed)
	slots := make([][]float32, cfg.Queue)
	for i := range slots {
		slots[i] = append([]float32(nil), start.Keys()[i*cfg.Dim:(i+1)*cfg.Dim]...)
	}
	samples := sampler.New(ds.Len(), cfg.Seed)
	g, d, p, b := cfg.BNGroup, cfg.Dim, net.NumParams(), net.NumBuffers()
	view := func(refs []sampler.Ref, which int) []float32 {
		var images []float32
		for _, ref := range refs {
			img, err := ds.Decode(ref.Sample, data.NewDecoder())
			if err != nil {
				t.Fatal(err)
			}
			one := make([]float32, 3*cfg.ImageSize*cfg.ImageSize)
			worker.View(img, augment.Seed(cfg.Seed, ref.Epoch, ref.Sample, which), one)
			images = append(images, one...)
		}
		return images
	}
	next := 0
	for step := int64(1); step <= steps; step++ {
		cursor := (step - 1) * int64(cfg.Batch)
		refs, perm := samples.Batch(cursor, cfg.Batch), samples.Shuffle(cursor, cfg.Batch)
		vectors := make([][]float32, cfg.Groups())
		keys := make([][]float32, cfg.Batch)
		for j := range vectors {
			vectors[j] = make([]float32, p+2*b)
			shuffled := make([]sampler.Ref, g)
			for i := range shuffled {
				shuffled[i] = refs[perm[j*g+i]]
			}
			out := make([]float32, g*d)
			if err := moco.Keys(view(shuffled, 1), out, vectors[j][p+b:]); err != nil {
				t.Fatal(err)
			}
			for i := range shuffled {
				keys[perm[j*g+i]] = out[i*d : (i+1)*d]
			}
		}
		var negatives []float32
		for _, s := range slots {
			negatives = append(negatives, s...)
		}
		for j := range vectors {
			in := model.StepInput{
				Images: view(refs[j*g:(j+1)*g], 0), Shards: loss.Split(negatives, nil, d, cfg.QueueShards), Step: step, BatchSize: cfg.Batch,
				Mix: samples.Epoch(cursor) >= cfg.MoCHiWarmup,
			}
			for i, ref := range refs[j*g : (j+1)*g] {
				in.Positives = append(in.Positives, keys[j*g+i]...)
				in.Samples = append(in.Samples, ref.Sample)
			}
			if _, err := moco.Step(in, vectors[j][:p], vectors[j][p:p+b], nil); err != nil {
				t.Fatal(err)
			}
		}
		sum := make([]float32, p+2*b)
		add := func(tensors []network.Tensor, base int) {
			for _, tensor := range tensors {
				lo, hi := base+tensor.Offset, base+tensor.Offset+tensor.Size
				var largest float32
				for _, v := range vectors {
					largest = max(largest, allreduce.MaxAbs(v[lo:hi]))
				}
				unit, err := allreduce.Grid(largest, cfg.Groups())
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range vectors {
					allreduce.AddRounded(sum[lo:hi], v[lo:hi], unit)
				}
			}
		}
		add(net.Params, 0)
		add(net.Buffers, p)
		add(net.Buffers, p+b)
		for i := p; i < len(sum); i++ {
			sum[i] *= 1 / float32(cfg.Groups())
		}
		if err := moco.Apply(sum[:p], sum[p:p+b], sum[p+b:], cfg.LR); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			slots[next] = append([]float32(nil), k...)
			next = (next + 1) % cfg.Queue
		}
	}
	st := &checkpoint.State{QueuePtr: next}
	for _, s := range slots {
		st.Queue = append(st.Queue, s...)
	}
	state := moco.State()
	copyOf := func(v engine.Vector) []float32 { return append([]float32(nil), state.Host(v)...) }
	st.QueryParams, st.KeyParams = copyOf(engine.QueryParams), copyOf(engine.KeyParams)
	st.QueryBuffers, st.KeyBuffers = copyOf(engine.QueryBuffers), copyOf(engine.KeyBuffers)
	return st
}

// The queue and the encoders after 50 steps have the same bits as those of a
// plain simulation of the sampler and the method.
func TestTrainingEqualsPlainSimulation(t *testing.T) {
	cfg, ds := testConfig(), pictures{n: 30, size: 12}
	const steps = 50
	got := train(t, newScript(t, cfg, steps), ds)
	want := simulation(t, cfg, ds, steps)
	if got.QueuePtr != want.QueuePtr {
		t.Errorf("queue_ptr %d, want %d", got.QueuePtr, want.QueuePtr)
	}
	for name, pair := range map[string][2][]float32{
		"queue":           {got.Queue, want.Queue},
		"encoder_q":       {got.QueryParams, want.QueryParams},
		"encoder_k":       {got.KeyParams, want.KeyParams},
		"encoder_q stats": {got.QueryBuffers, want.QueryBuffers},
		"encoder_k stats": {got.KeyBuffers, want.KeyBuffers},
	} {
		if a, b := checkpoint.Digest(pair[0]), checkpoint.Digest(pair[1]); a != b {
			t.Errorf("%s differs from the plain simulation's", name)
		}
	}
}

// A run continued from a checkpoint ends with the same bits as an unbroken one.
func TestCheckpointContinues(t *testing.T) {
	cfg, ds := testConfig(), pictures{n: 30, size: 12}
	whole := newScript(t, cfg, 9)
	want := train(t, whole, ds)
	half := newScript(t, cfg, 4)
	train(t, half, ds)
	rest := newScript(t, cfg, 9)
	rest.source, rest.blob, rest.first = protocol.FromCheckpoint, half.uploads[4], 4
	got := train(t, rest, ds)
	if a, b := checkpoint.Digest(got.QueryParams, got.KeyParams, got.Momentum, got.Queue), checkpoint.Digest(want.QueryParams, want.KeyParams, want.Momentum, want.Queue); a != b {
		t.Error("the continued run differs from the unbroken one")
	}
	if a, b := rest.commits[len(rest.commits)-1].Digest, whole.commits[len(whole.commits)-1].Digest; a != b {
		t.Errorf("gradients of the last step: %s, want %s", a, b)
	}
}

// A ring that does not open is no reason to end the job, which is what Fatal
// would do.
func TestRingDoesNotOpen(t *testing.T) {
	ds := pictures{n: 30, size: 12}
	s := newScript(t, testConfig(), 1)
	link := &witness{script: s}
	r := New(Config{ID: "r", Engine: openTestEngine, Link: link,
		Ring: func(context.Context, protocol.Round, int, string) (Ring, error) {
			return nil, errors.New("connection closed")
		},
		Data: &data.Set{Train: ds, Info: protocol.Data{Kind: "test", Train: ds.Len()}}})
	if err := r.Run(t.Context()); !errors.Is(err, ErrJobFailed) { // the script ends with the first failure
		t.Fatal(err)
	}
	if f := link.failed; f == nil || f.Fatal || f.NoState || !strings.Contains(f.Error, "connection closed") {
		t.Errorf("reported %+v", f)
	}
}

// witness is a script that keeps what was reported as failed.
type witness struct {
	*script
	failed *protocol.Failed
}

func (w *witness) Send(ctx context.Context, m protocol.Message) error {
	if m.Failed != nil {
		w.failed = m.Failed
	}
	return w.script.Send(ctx, m)
}

func TestReplicaEnds(t *testing.T) {
	ds := pictures{n: 30, size: 12}
	run := func(s *script, ds data.Dataset) error {
		r := New(Config{ID: "r", Engine: openTestEngine, Link: s, Ring: alone,
			Data: &data.Set{Train: ds, Info: protocol.Data{Kind: "test", Train: ds.Len()}}})
		return r.Run(t.Context())
	}
	t.Run("refused", func(t *testing.T) {
		s := newScript(t, testConfig(), 1)
		s.messages <- protocol.Message{Refused: &protocol.Refused{Field: "binary", Want: "a", Got: "b", Hint: "use the same build"}}
		err := run(s, ds)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "binary") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("diverged", func(t *testing.T) {
		cfg := testConfig()
		cfg.LR = 1e30
		err := run(newScript(t, cfg, 5), ds)
		if !errors.Is(err, ErrJobFailed) || !strings.Contains(err.Error(), "finite") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no image can be decoded", func(t *testing.T) {
		err := run(newScript(t, testConfig(), 2), pictures{n: 30, size: 12, bad: 1})
		if !errors.Is(err, ErrJobFailed) || !strings.Contains(err.Error(), "picture") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("some images cannot", func(t *testing.T) {
		if err := run(newScript(t, testConfig(), 4), pictures{n: 30, size: 12, bad: 7}); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
