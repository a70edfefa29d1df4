//go:build gpu

package cuda

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/network"
)

// outcome is what a step leaves of its groups.
type outcome struct{ embeddings, features, statistics, grads []float32 }

func step(t testing.TB, p engine.Program, net *network.Network, groups int, images, d []float32, ready func(int, []float32)) outcome {
	t.Helper()
	spec := p.Spec()
	n := groups * spec.Batch
	o := outcome{make([]float32, n*net.Dim), make([]float32, n*net.FeatureDim), make([]float32, groups*net.NumBuffers()), nil}
	if err := p.Forward(images, o.embeddings); err != nil {
		t.Fatal(err)
	}
	p.Features(o.features)
	p.Statistics(o.statistics)
	if spec.Mode == engine.Train {
		o.grads = make([]float32, groups*net.NumParams())
		for i := range o.grads {
			o.grads[i] = 1e30 // what is not written is seen
		}
		if err := p.Backward(d, o.grads, func(param int) {
			if ready != nil {
				ready(param, o.grads)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// resnet has every kind of step, few channels, and a max pooling behind a
// BatchNorm.
func resnet(t testing.TB) *network.Network {
	t.Helper()
	net, err := network.Build("resnet18", network.Options{Channels: 3, ImageSize: 33, Dim: 4, Head: network.HeadMLP, Width: 8})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// Several groups in one program give the bits of one after the other: outputs,
// statistics and every gradient, which stay apart. (On the emulated GPU, whose
// convolutions are the same for every batch size.)
func TestGroupsAreThoseOfOneAtATime(t *testing.T) {
	emulator.Only(t)
	for batch, net := range map[int]*network.Network{8: small(t), 3: resnet(t)} { // small's 7 channels start at multiples of 16 bytes with 8
		for _, precision := range []engine.Precision{engine.FP32, engine.BF16} {
			e := start(t, engine.Config{Precision: precision})
			for _, mode := range []engine.Mode{engine.Train, engine.Forward} {
				st, alone := ready(t, e, net, engine.Spec{Batch: batch, Mode: mode})
				for _, groups := range []int{1, 3} {
					images, d := values(groups*alone.calls.Images(), 7), values(groups*alone.calls.Embeddings(), 8)
					for i := range images[alone.calls.Images():] {
						images[alone.calls.Images()+i] += float32(1+i/alone.calls.Images()) / 4 // other statistics in every group
					}
					var want outcome
					for g := range groups {
						o := step(t, alone, net, 1, images[g*alone.calls.Images():(g+1)*alone.calls.Images()], d[g*alone.calls.Embeddings():(g+1)*alone.calls.Embeddings()], nil)
						want = outcome{append(want.embeddings, o.embeddings...), append(want.features, o.features...),
							append(want.statistics, o.statistics...), append(want.grads, o.grads...)}
					}
					var together engine.Grouped = st
					p, err := together.CompileGroups(engine.Spec{Batch: batch, Mode: mode}, groups)
					if err != nil {
						t.Fatal(err)
					}
					seen := 0
					got := step(t, p, net, groups, images, d, func(param int, grads []float32) {
						seen++
						for g := range groups { // those of all groups are final
							at := g*net.NumParams() + net.Params[param].Offset
							if size := net.Params[param].Size; !sameBits(grads[at:at+size], want.grads[at:at+size]) {
								t.Errorf("%s, %v, %d groups: gradient of %s in group %d is not that of the group alone", net.Arch, precision, groups, net.Params[param].Name, g)
							}
						}
					})
					if mode == engine.Train && seen != len(net.Params) {
						t.Errorf("ready was called for %d of %d parameters", seen, len(net.Params))
					}
					for what, v := range map[string][2][]float32{"embeddings": {got.embeddings, want.embeddings}, "features": {got.features, want.features},
						"statistics": {got.statistics, want.statistics}, "gradients": {got.grads, want.grads}} {
						if !sameBits(v[0], v[1]) {
							t.Errorf("%s, %v, mode %d, %d groups: %s are not those of one group at a time", net.Arch, precision, mode, groups, what)
						}
					}
					if groups > 1 && slices.Equal(want.statistics[:net.NumBuffers()], want.statistics[net.NumBuffers():2*net.NumBuffers()]) {
						t.Error("two groups have the same statistics: the test shows nothing")
					}
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
	emulator.Record(t)
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// The launches of several groups are those of one, but for the gradients of
// weights, which every group has its own of.
func TestLaunchesOfGroups(t *testing.T) {
	emulator.Only(t)
	const batch, groups = 2, 4
	net := resnet(t)
	st, alone := ready(t, start(t, engine.Config{Precision: engine.BF16}), net, engine.Spec{Batch: batch})
	p, err := st.CompileGroups(engine.Spec{Batch: batch}, groups)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	records := func(p engine.Program, n int) map[string]int {
		emulator.Record(t)
		step(t, p, net, n, values(n*alone.calls.Images(), 1), values(n*alone.calls.Embeddings(), 2), nil)
		count := map[string]int{}
		for _, line := range emulator.Record(t) {
			words := strings.Fields(line)
			switch {
			case words[0] == "conv":
				count["conv "+words[1]]++
			case words[0] == "launch":
				count[words[1]]++
			case words[0] == "sgemm":
				count["sgemm"]++
			}
		}
		return count
	}
	one, all := records(alone, 1), records(p, groups)
	for what, n := range one {
		want := n
		switch what {
		case "conv filter", "weights_grad_bf16", "bias_grad_f32":
			want = groups * n
		case "sgemm": // two linear layers: forward and data gradients together
			want = 2 + 2 + groups*2
		}
		if all[what] != want {
			t.Errorf("%d groups: %d × %s, want %d (one group: %d)", groups, all[what], what, want, n)
		}
	}
	if one["conv filter"] < 10 || one["bn_apply_bf16"] < 10 || len(one) != len(all) {
		t.Errorf("recorded: %v, %v", one, all)
	}
	total := func(m map[string]int) (n int) {
		for _, v := range m {
			n += v
		}
		return n
	}
	t.Logf("launches: one group %d, %d groups together %d instead of %d", total(one), groups, total(all), groups*total(one))
}

// What cannot be run together is refused as unsupported, so that a caller runs
// one group at a time.
func TestGroupsRefused(t *testing.T) {
	emulator.Only(t)
	e := start(t, engine.Config{Precision: engine.BF16})
	st, _ := ready(t, e, small(t), engine.Spec{Batch: 2})
	if _, err := st.CompileGroups(engine.Spec{Batch: 2, Mode: engine.Eval}, 2); !errors.Is(err, engine.ErrUnsupported) {
		t.Errorf("mode Eval: %v", err)
	}
	if _, err := st.CompileGroups(engine.Spec{Batch: 2}, 0); err == nil {
		t.Error("no groups: no error")
	}
	b := network.NewBuilder("odd", 3, 3)
	x := b.GlobalAvgPool(b.Conv("b", b.Conv("a", 0, 5, 1, 1, 0), 4, 1, 1, 0))
	net, err := b.Build(x, b.L2Normalize(x))
	if err != nil {
		t.Fatal(err)
	}
	odd, _ := ready(t, e, net, engine.Spec{Batch: 1})
	if _, err := odd.CompileGroups(engine.Spec{Batch: 1}, 2); !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "multiple of the 16") {
		t.Errorf("groups that do not start at a multiple of 16 bytes: %v", err)
	}
	if p, err := odd.CompileGroups(engine.Spec{Batch: 1}, 1); err != nil {
		t.Error(err)
	} else if err := p.Close(); err != nil {
		t.Error(err)
	}
	_, err = st.CompileGroups(engine.Spec{Batch: 400}, 5000)
	if full := (*driver.OutOfMemory)(nil); !errors.As(err, &full) || !strings.Contains(err.Error(), "5000 groups of 400 samples at a time needs ") ||
		!strings.Contains(err.Error(), "the largest number of groups at a time (--groups-at-once) that fits") {
		t.Errorf("too many groups: %v", err)
	}
	emulator.Record(t)
}
