//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/network"
)

// trail is all that some steps leave, and what each put into the streams.
type trail struct {
	values  [][]float32
	ready   []int
	records [][]string
}

// walk trains some steps with other images and parameters in each, staged and
// not, and calls between before each.
func walk(t *testing.T, e *gpu, net *network.Network, steps int, between func(step int, s *state, p *program)) trail {
	t.Helper()
	s, p := ready(t, e, net, engine.Spec{Batch: 2})
	key, err := s.Compile(engine.Spec{Encoder: engine.Key, Batch: 2, Mode: engine.Forward})
	if err != nil {
		t.Fatal(err)
	}
	var l trail
	for i := range steps {
		images, d := values(p.calls.Images(), 10+i), values(p.calls.Embeddings(), 20+i)
		out, keys := make([]float32, p.calls.Embeddings()), make([]float32, p.calls.Embeddings())
		u := engine.Update{Grads: make([]float32, net.NumParams()), QueryStatistics: make([]float32, net.NumBuffers()),
			KeyStatistics: make([]float32, net.NumBuffers()), LR: 0.1, SGDMomentum: 0.9, EncoderMomentum: 0.5}
		if between != nil {
			between(i, s, p)
		}
		if i%2 == 1 {
			err = p.Stage(images)
		}
		emulator.Record(t)
		err = errors.Join(err, p.Forward(images, out), key.Forward(images, keys))
		p.Statistics(u.QueryStatistics)
		key.Statistics(u.KeyStatistics)
		seen := slices.Clone(u.Grads)
		err = errors.Join(err, p.Backward(d, u.Grads, func(param int) {
			l.ready = append(l.ready, param)
			of := net.Params[param]
			copy(seen[of.Offset:], u.Grads[of.Offset:][:of.Size])
		}))
		l.records = append(l.records, emulator.Record(t))
		if err = errors.Join(err, s.Update(u)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(seen, u.Grads) {
			t.Error("a gradient is not final when ready is called")
		}
		l.values = append(l.values, out, keys, u.Grads, u.QueryStatistics, u.KeyStatistics, slices.Clone(s.Host(engine.QueryParams)))
	}
	return l
}

func (l trail) same(t *testing.T, what string, o trail) {
	t.Helper()
	if !slices.Equal(l.ready, o.ready) {
		t.Errorf("%s: gradients are ready in another order", what)
	}
	for i := range l.values {
		if !sameBits(l.values[i], o.values[i]) {
			t.Errorf("%s: step %d: result %d has other bits", what, i/6, i%6)
		}
	}
}

// singly is an engine without graphs.
func singly(t *testing.T, cfg engine.Config) *gpu {
	t.Helper()
	t.Setenv(withoutGraphs, "off")
	e := start(t, cfg)
	t.Setenv(withoutGraphs, "")
	return e
}

// calls are those that put computation into a stream.
func calls(record []string) (n int) {
	for _, l := range record {
		for _, p := range []string{"launch ", "conv ", "sgemm ", "graph of "} {
			if strings.HasPrefix(l, p) {
				n++
			}
		}
	}
	return n
}

// From the third step on a forward is one call, and so is each part of a
// backward: with the same bits, the same order of gradients and as many waits.
func TestGraphs(t *testing.T) {
	emulator.Only(t)
	for name, net := range map[string]*network.Network{"large": large(t), "resnet": resnet(t)} {
		for _, precision := range []engine.Precision{engine.FP32, engine.TF32, engine.BF16} {
			if name == "resnet" && precision == engine.TF32 {
				continue // slow, and nothing new
			}
			what := fmt.Sprint(name, ", ", precision)
			e := start(t, engine.Config{Precision: precision})
			parts := 0
			got := walk(t, e, net, 5, func(_ int, _ *state, p *program) { parts = len(p.backward) })
			want := walk(t, singly(t, engine.Config{Precision: precision}), net, 5, nil)
			got.same(t, what, want)
			if sameBits(got.values[0], got.values[6]) {
				t.Errorf("%s: two steps are alike: the test shows nothing", what)
			}
			for i, record := range got.records {
				first := calls(got.records[0])
				if captures := count(record, "capture "); (i == 1) != (captures == parts+2) || i != 1 && captures > 0 {
					t.Errorf("%s: step %d has %d captures", what, i, captures)
				}
				if n := calls(record); i > 1 && n != parts+2 || i == 0 && (n < 4*(parts+2) || n != calls(want.records[4])) {
					t.Errorf("%s: step %d of %d parts is %d calls, the first %d", what, i, parts, n, first)
				}
				if n := count(record, "synchronize"); n != parts+2 {
					t.Errorf("%s: step %d of %d parts waits %d times", what, i, parts, n)
				}
			}
			t.Logf("%s: %d calls, then %d", what, calls(got.records[0]), calls(got.records[4]))
		}
	}
}

// The clock runs on with graphs as without.
func TestGraphsAreTimed(t *testing.T) {
	emulator.Only(t)
	e := start(t, engine.Config{})
	var took []map[string]int64
	walk(t, e, large(t), 5, func(int, *state, *program) {
		now := map[string]int64{}
		for name, d := range e.DeviceTime() {
			now[name] = d.Microseconds()
		}
		took = append(took, now)
	})
	for name := range took[0] {
		if first, later := took[1][name]-took[0][name], took[3][name]-took[2][name]; later < first-2 || later > first+2 {
			t.Errorf("%s: %d µs, with graphs %d", name, first, later)
		}
	}
}

// When cuDNN's workspace moves, graphs that know the old one are made anew. (The
// emulated cuDNN finds a fault where its workspace is gone.)
func TestGraphsFollowTheWorkspace(t *testing.T) {
	emulator.Only(t)
	e, net := start(t, engine.Config{}), large(t)
	grow := func(step int, s *state, _ *program) {
		if step != 3 {
			return
		}
		leave, err := s.e.enter()
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		had := s.e.space
		if err := s.e.reserve(2 * had.Bytes); err != nil || s.e.space == had {
			t.Fatal(err, "the workspace has not moved")
		}
	}
	got := walk(t, e, net, 5, grow)
	got.same(t, "a workspace that has grown", walk(t, singly(t, engine.Config{}), net, 5, grow))
	if n, m := count(got.records[1], "capture "), count(got.records[3], "capture "); n == 0 || m != n || count(got.records[4], "capture ") > 0 {
		t.Errorf("%d captures at first, %d after the workspace has moved", n, m)
	}
}

// Where a capture fails the engine launches one by one, tries no other capture,
// and says why.
func TestWithoutCapture(t *testing.T) {
	emulator.Only(t)
	t.Setenv("MOCHI_EMULATOR_NO_CAPTURE", "1")
	e, net := start(t, engine.Config{}), large(t)
	if strings.Contains(e.Info().Device, "graphs") {
		t.Errorf("device %q before any capture", e.Info().Device)
	}
	got := walk(t, e, net, 4, nil)
	got.same(t, "without captures", walk(t, singly(t, engine.Config{}), net, 4, nil))
	failed := 0
	for _, r := range got.records {
		failed += count(r, "capture failed")
	}
	if !strings.HasSuffix(e.Info().Device, "; without CUDA graphs: end a capture: CUDA error 901 (CUDA_ERROR: emulated)") || failed != 1 {
		t.Errorf("%d captures failed; device %q", failed, e.Info().Device)
	}
}

// Graphs go with their program.
func TestGraphsAreFreed(t *testing.T) {
	emulator.Only(t)
	e := start(t, engine.Config{})
	s, p := ready(t, e, large(t), engine.Spec{Batch: 2})
	out := make([]float32, p.calls.Embeddings())
	for range 2 {
		if err := errors.Join(p.Forward(values(p.calls.Images(), 1), out), p.Backward(out, make([]float32, p.grads()), nil)); err != nil {
			t.Fatal(err)
		}
	}
	emulator.Record(t)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	record := emulator.Record(t)
	if n := count(record, "graph destroyed"); n != len(p.backward)+1 || !slices.ContainsFunc(record, func(l string) bool { return strings.HasPrefix(l, "graph destroyed, 0 left") }) {
		t.Errorf("%d graphs of %d are destroyed:\n%s", n, len(p.backward)+1, strings.Join(record, "\n"))
	}
}
