package replica_test

import (
	"context"
	"errors"
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
	"mochi/replica"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
	"mochi/replica/queue"
	"mochi/replica/replicatest"
)

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

// alone opens the ring of a world of one.
func alone(context.Context, protocol.Round, int, config.Job) (replica.Ring, error) {
	return replicatest.Ring{}, nil
}

func testEngine(t *testing.T) engine.Engine {
	e, err := gorgonia.New(engine.Config{Precision: engine.FP32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// train runs a scripted job and returns its final checkpoint.
func train(t *testing.T, s *replicatest.Script, ds replicatest.Pictures) *checkpoint.State {
	t.Helper()
	r := replica.New(replica.Config{
		ID: "r", Name: "r", Engine: openTestEngine, Link: s, Ring: alone, Workers: 2, Data: ds.Set(),
	})
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	blob := s.Uploads[s.Steps]
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
	moco, err := model.New(testEngine(t), net, replica.ModelConfig(cfg))
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
	start := queue.New(cfg.Queue, cfg.Dim, cfg.Shards())
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
				Images: view(refs[j*g:(j+1)*g], 0), Shards: loss.Split(negatives, nil, d, cfg.Shards()), Step: step, BatchSize: cfg.Batch,
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
	cfg, ds := testConfig(), replicatest.Pictures{N: 30, Size: 12}
	const steps = 50
	got := train(t, replicatest.NewScript(cfg, steps), ds)
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
	cfg, ds := testConfig(), replicatest.Pictures{N: 30, Size: 12}
	whole := replicatest.NewScript(cfg, 9)
	want := train(t, whole, ds)
	half := replicatest.NewScript(cfg, 4)
	train(t, half, ds)
	rest := replicatest.NewScript(cfg, 9)
	rest.Source, rest.Blob, rest.First = protocol.FromCheckpoint, half.Uploads[4], 4
	got := train(t, rest, ds)
	if a, b := checkpoint.Digest(got.QueryParams, got.KeyParams, got.Momentum, got.Queue), checkpoint.Digest(want.QueryParams, want.KeyParams, want.Momentum, want.Queue); a != b {
		t.Error("the continued run differs from the unbroken one")
	}
	if a, b := rest.Commits[len(rest.Commits)-1].Digest, whole.Commits[len(whole.Commits)-1].Digest; a != b {
		t.Errorf("gradients of the last step: %s, want %s", a, b)
	}
}

// A ring that does not open is no reason to end the job, which is what Fatal
// would do.
func TestRingDoesNotOpen(t *testing.T) {
	ds := replicatest.Pictures{N: 30, Size: 12}
	s := replicatest.NewScript(testConfig(), 1)
	var failed *protocol.Failed
	s.Heard = func(m protocol.Message) bool {
		if m.Failed != nil {
			failed = m.Failed
		}
		return false
	}
	r := replica.New(replica.Config{ID: "r", Engine: openTestEngine, Link: s,
		Ring: func(context.Context, protocol.Round, int, config.Job) (replica.Ring, error) {
			return nil, errors.New("connection closed")
		},
		Data: ds.Set()})
	if err := r.Run(t.Context()); !errors.Is(err, replica.ErrJobFailed) { // the script ends with the first failure
		t.Fatal(err)
	}
	if f := failed; f == nil || f.Fatal || f.NoState || !strings.Contains(f.Error, "connection closed") {
		t.Errorf("reported %+v", f)
	}
}

func TestReplicaEnds(t *testing.T) {
	ds := replicatest.Pictures{N: 30, Size: 12}
	run := func(s *replicatest.Script, ds replicatest.Pictures) error {
		r := replica.New(replica.Config{ID: "r", Engine: openTestEngine, Link: s, Ring: alone,
			Data: ds.Set()})
		return r.Run(t.Context())
	}
	t.Run("refused", func(t *testing.T) {
		s := replicatest.NewScript(testConfig(), 1)
		s.Say(protocol.Message{Refused: &protocol.Refused{Field: "binary", Want: "a", Got: "b", Hint: "use the same build"}})
		err := run(s, ds)
		if !errors.Is(err, replica.ErrRefused) || !strings.Contains(err.Error(), "binary") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("diverged", func(t *testing.T) {
		cfg := testConfig()
		cfg.LR = 1e30
		err := run(replicatest.NewScript(cfg, 5), ds)
		if !errors.Is(err, replica.ErrJobFailed) || !strings.Contains(err.Error(), "finite") {
			t.Errorf("got %v", err)
		}
	})
	// Its own trouble ends the replica, not the job.
	t.Run("no image can be decoded", func(t *testing.T) {
		s := replicatest.NewScript(testConfig(), 2)
		var failed *protocol.Failed
		s.Heard = func(m protocol.Message) bool {
			if m.Failed != nil {
				failed = m.Failed
			}
			return m.Failed != nil
		}
		err := run(s, replicatest.Pictures{N: 30, Size: 12, Bad: 1})
		if err == nil || errors.Is(err, replica.ErrJobFailed) || !strings.Contains(err.Error(), "picture") {
			t.Errorf("got %v", err)
		}
		if failed == nil || !failed.Leaves || failed.Fatal || !strings.Contains(failed.Error, "picture") {
			t.Errorf("reported %+v", failed)
		}
	})
	t.Run("some images cannot", func(t *testing.T) {
		if err := run(replicatest.NewScript(testConfig(), 4), replicatest.Pictures{N: 30, Size: 12, Bad: 7}); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
