package schedule

import (
	"fmt"
	"slices"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// each plans several networks, batches, lanes and modes.
func each(t *testing.T, f func(t *testing.T, net *network.Network, s *Schedule)) {
	for _, arch := range []string{"resnet8", "resnet18", "resnet50", "resnet18-cifar"} {
		net, err := network.Build(arch, network.Options{Channels: 3, ImageSize: 64, Dim: 16, Head: network.HeadMLP})
		if err != nil {
			t.Fatal(err)
		}
		for _, batch := range []int{2, 5, 32} {
			for _, lanes := range []int{2, 3, 8} {
				for mode := engine.Train; mode <= engine.Eval; mode++ {
					for _, own := range []bool{false, true} {
						s, err := New(net, Options{Spec: engine.Spec{Batch: batch, Mode: mode}, Type: BF16, Lanes: lanes,
							OwnWeightGrad: func(l Layer) bool { return own && l.Kernel <= 3 }})
						if err != nil {
							t.Fatal(err)
						}
						t.Run(fmt.Sprintf("%s batch %d lanes %d mode %d own %v", arch, batch, lanes, mode, own),
							func(t *testing.T) { f(t, net, s) })
					}
				}
			}
		}
	}
}

func (s *Schedule) all() []Phase { return slices.Concat(s.Forward, s.Backward) }

// Every phase covers every sample once, lane by lane.
func TestSlicesCoverTheBatch(t *testing.T) {
	each(t, func(t *testing.T, _ *network.Network, s *Schedule) {
		for i, p := range s.all() {
			at := 0
			for lane, list := range p.Slices {
				from, to := s.Lane(lane)
				if at != from*p.Split {
					t.Fatalf("phase %d, lane %d begins at unit %d, want %d", i, lane, at, from*p.Split)
				}
				for _, sl := range list {
					if sl.First != at || sl.N < 1 {
						t.Fatalf("phase %d: slice %+v after unit %d", i, sl, at)
					}
					at += sl.N
				}
				if at != to*p.Split {
					t.Fatalf("phase %d, lane %d ends at unit %d, want %d", i, lane, at, to*p.Split)
				}
			}
			for _, j := range s.touched(&p) {
				if x := s.Tensors[j]; x.H%p.Split != 0 {
					t.Fatalf("phase %d cuts %d rows into %d", i, x.H, p.Split)
				}
			}
		}
	})
}

// Everything read was written before and has not been overwritten since: a
// walk over memory, in which every byte range knows whose it is.
func TestMemoryHoldsWhatIsRead(t *testing.T) {
	type span struct{ from, to, tensor int }
	each(t, func(t *testing.T, _ *network.Network, s *Schedule) {
		owned := map[Space][]span{}
		size := func(p *Phase, j int) int {
			if s.Tensors[j].Space != Scratch {
				return s.Batch * s.Tensors[j].Bytes()
			}
			n := 0
			for _, lane := range p.Slices {
				for _, sl := range lane {
					n = max(n, sl.N)
				}
			}
			return n * s.Tensors[j].Bytes() / p.Split
		}
		limit := map[Space]int{Arena: s.Arena, Kept: s.Kept, Scratch: s.Scratch}
		for i, p := range s.all() {
			owned[Scratch] = nil
			for _, o := range p.Ops {
				for _, j := range o.In {
					if j == None {
						continue
					}
					x := s.Tensors[j]
					if !slices.Contains(owned[x.Space], span{x.Offset, x.Offset + size(&p, j), j}) {
						t.Fatalf("phase %d: operation %d reads tensor %d, which is not there", i, o.Kind, j)
					}
				}
				for _, j := range o.Out {
					if j == None {
						continue
					}
					x := s.Tensors[j]
					now := span{x.Offset, x.Offset + size(&p, j), j}
					if now.to > limit[x.Space] {
						t.Fatalf("phase %d: tensor %d ends at %d of %d bytes", i, j, now.to, limit[x.Space])
					}
					for _, k := range o.In {
						if k != None && k != j && s.Tensors[k].Space == x.Space && s.Tensors[k].Offset < now.to &&
							now.from < s.Tensors[k].Offset+size(&p, k) {
							t.Fatalf("phase %d: operation %d writes tensor %d over its input %d", i, o.Kind, j, k)
						}
					}
					// Slices of other threads may still read anything of this phase.
					if x.Space != Scratch {
						for _, k := range s.touched(&p) {
							if k != j && s.Tensors[k].Space == x.Space && s.Tensors[k].Offset < now.to && now.from < s.Tensors[k].Offset+size(&p, k) {
								t.Fatalf("phase %d: tensors %d and %d share memory", i, j, k)
							}
						}
					}
					owned[x.Space] = append(slices.DeleteFunc(owned[x.Space], func(v span) bool { return v.from < now.to && now.from < v.to }), now)
				}
			}
		}
	})
}

// A norm is used only after the phase that completes it, and every parameter's
// gradient is final once.
func TestBarriersAndGradients(t *testing.T) {
	each(t, func(t *testing.T, net *network.Network, s *Schedule) {
		ready := map[int]int{}
		complete := map[Tail]bool{}
		for i, p := range s.all() {
			for _, o := range p.Ops {
				for _, n := range o.Norm {
					want := Tail{Fold, n}
					if o.Kind == GradApply {
						want.Kind = GradFold
					}
					if n != None && o.Kind != Stats && o.Kind != Sums && len(s.Backward) > 0 && !complete[want] {
						t.Fatalf("phase %d: operation %d uses norm %d too early", i, o.Kind, n)
					}
				}
			}
			for _, tail := range p.Tails {
				complete[tail] = true
			}
			for _, param := range p.Ready {
				ready[param]++
			}
		}
		for i := range net.Params {
			if want := min(1, len(s.Backward)); ready[i] != want {
				t.Errorf("%s is final %d times, want %d", net.Params[i].Name, ready[i], want)
			}
		}
	})
}

// What the schedule is for: no normalised map of a bottleneck is stored, and a
// training program needs little more than the outputs of convolutions and
// blocks.
func TestResNet50IsSmall(t *testing.T) {
	net, err := network.Build("resnet50", network.Options{Channels: 3, ImageSize: 224, Dim: 128, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(net, Options{Spec: engine.Spec{Batch: 32, Mode: engine.Train}, Type: BF16, Lanes: 2,
		OwnWeightGrad: func(l Layer) bool { return l.Kernel <= 3 }})
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for _, n := range net.Nodes {
		if n.Op == network.OpConv || n.Op == network.OpAdd {
			stored += 32 * 2 * n.Out[0] * n.Out[1] * n.Out[2]
		}
	}
	if s.Arena > stored*11/10 {
		t.Errorf("the arena has %d MB beside %d MB of convolutions and blocks", s.Arena>>20, stored>>20)
	}
	if s.Scratch > 8<<20 {
		t.Errorf("a slice's scratch is %d kB", s.Scratch>>10)
	}
}

func TestBatchNormOfOneValue(t *testing.T) {
	b := network.NewBuilder("single", 3, 1)
	x := b.GlobalAvgPool(b.BatchNorm("bn", 0, false))
	net, err := b.Build(x, b.L2Normalize(x))
	if err != nil {
		t.Fatal(err)
	}
	for batch, wrong := range map[int]bool{1: true, 2: false} {
		_, err := New(net, Options{Spec: engine.Spec{Batch: batch}, Lanes: 2, OwnWeightGrad: func(Layer) bool { return false }})
		if (err != nil) != wrong {
			t.Errorf("batch %d: %v", batch, err)
		}
	}
}
