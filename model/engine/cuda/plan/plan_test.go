package plan

import (
	"fmt"
	"slices"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// each plans several networks, batches, modes and formats.
func each(t *testing.T, f func(t *testing.T, net *network.Network, p *Plan)) {
	for _, arch := range []string{"resnet8", "resnet18", "resnet50", "resnet18-cifar"} {
		net, err := network.Build(arch, network.Options{Channels: 3, ImageSize: 64, Dim: 16, Head: network.HeadMLP})
		if err != nil {
			t.Fatal(err)
		}
		for _, batch := range []int{2, 5, 32} {
			for mode := engine.Train; mode <= engine.Eval; mode++ {
				for _, kind := range []kernel.Type{kernel.F32, kernel.BF16} {
					p, err := New(net, engine.Spec{Batch: batch, Mode: mode}, 1, kind)
					if err != nil {
						t.Fatal(err)
					}
					t.Run(fmt.Sprintf("%s batch %d mode %d %v", arch, batch, mode, kind), func(t *testing.T) { f(t, net, p) })
				}
			}
		}
	}
}

// Everything read was written before and not overwritten since; no step writes
// over what it reads, but in its place.
func TestMemoryHoldsWhatIsRead(t *testing.T) {
	type span struct{ from, to, tensor int }
	each(t, func(t *testing.T, _ *network.Network, p *Plan) {
		var owned []span
		for i, s := range slices.Concat(p.Forward, p.Backward) {
			for _, in := range s.In {
				if in == None {
					continue
				}
				x := p.Tensors[in]
				if !slices.Contains(owned, span{x.Offset, x.Offset + p.Bytes(in), in}) {
					t.Fatalf("step %d, kind %d, reads tensor %d, which is not there", i, s.Kind, in)
				}
			}
			for _, out := range s.Out {
				if out == None {
					continue
				}
				now := span{p.Tensors[out].Offset, p.Tensors[out].Offset + p.Bytes(out), out}
				if now.to > p.Arena || now.from%alignment != 0 {
					t.Fatalf("tensor %d is at %d to %d of %d bytes", out, now.from, now.to, p.Arena)
				}
				for _, in := range s.In {
					if in != None && in != out && p.Tensors[in].Offset < now.to && now.from < p.Tensors[in].Offset+p.Bytes(in) {
						t.Fatalf("step %d writes tensor %d over its input %d", i, out, in)
					}
				}
				owned = append(slices.DeleteFunc(owned, func(v span) bool { return v.from < now.to && now.from < v.to }), now)
			}
		}
		for _, kept := range []int{p.Feature} {
			x := p.Tensors[kept]
			if !slices.Contains(owned, span{x.Offset, x.Offset + p.Bytes(kept), kept}) {
				t.Error("the features are overwritten")
			}
		}
	})
}

// A norm is used after its sums, and every gradient is final once, after which
// nobody writes it.
func TestOrder(t *testing.T) {
	each(t, func(t *testing.T, net *network.Network, p *Plan) {
		stats, grads, ready := map[int]bool{}, map[int]bool{}, map[int]int{}
		for i, s := range slices.Concat(p.Forward, p.Backward) {
			for _, n := range s.Norm {
				if n == None {
					continue
				}
				switch s.Kind {
				case schedule.Stats:
					stats[n] = true
				case schedule.Sums:
					grads[n] = true
				case schedule.GradApply:
					if !grads[n] {
						t.Fatalf("step %d uses the sums of norm %d too early", i, n)
					}
				default:
					if len(p.Backward) > 0 && !stats[n] {
						t.Fatalf("step %d uses norm %d too early", i, n)
					}
				}
			}
			for _, param := range s.Ready {
				ready[param]++
			}
		}
		for _, param := range p.Unused {
			ready[param]++
		}
		for i := range net.Params {
			if len(p.Backward) > 0 && ready[i] != 1 {
				t.Errorf("%s is final %d times", net.Params[i].Name, ready[i])
			}
		}
	})
}

// Working copies do not overlap, start at multiples of what cuDNN asks, and
// images have as many channels as the convolution that reads them.
func TestWeights(t *testing.T) {
	each(t, func(t *testing.T, net *network.Network, p *Plan) {
		kind := kernel.F32
		if p.Layers[0].Type == schedule.BF16 {
			kind = kernel.BF16
		}
		table, at := Weights(net, kind)
		end := int64(0)
		for _, w := range table {
			if w.To < end || w.To%int64(kind.Vector()) != 0 {
				t.Errorf("weights at %d, those before end at %d", w.To, end)
			}
			end = w.To + int64(w.Out)*int64(w.Taps)*int64(w.Padded)
		}
		if Copies(table) != int(end) {
			t.Errorf("%d values, want %d", Copies(table), end)
		}
		want := map[kernel.Type]int{kernel.F32: 4, kernel.BF16: 8}[kind]
		if p.Tensors[p.Images].C != want {
			t.Errorf("images have %d channels, want %d", p.Tensors[p.Images].C, want)
		}
		for _, l := range p.Layers {
			if !l.Linear && !l.Pool && (l.Copy != int(at[l.Weight].To) || l.Padded < l.In) {
				t.Errorf("layer %+v", l)
			}
		}
	})
}

// What a training step of ResNet-50 keeps: outputs of convolutions, normalised
// maps and blocks, and little more.
func TestResNet50Memory(t *testing.T) {
	net, err := network.Build("resnet50", network.Options{Channels: 3, ImageSize: 224, Dim: 128, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(net, engine.Spec{Batch: 32, Mode: engine.Train}, 1, kernel.BF16)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for _, n := range net.Nodes {
		if len(n.Out) == 3 && n.Op != network.OpInput {
			stored += 32 * 2 * n.Out[0] * n.Out[1] * n.Out[2]
		}
	}
	t.Logf("arena %d MiB, all maps %d MiB", p.Arena>>20, stored>>20)
	if p.Arena > stored*11/10 {
		t.Errorf("the arena has %d MiB beside %d MiB of maps", p.Arena>>20, stored>>20)
	}
}
