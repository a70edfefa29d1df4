package replica

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/network"
)

// A member that is alone sums on all threads when all gradients are there: the
// same bits as bucket by bucket beside backward, those of the definition, and
// of several tensors that are not finite the same one.
func TestReductionAlone(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{ImageSize: 28, Channels: 1, Dim: 32, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	const groups, atOnce = 6, 2
	for _, exact := range []bool{true, false} {
		run := func(alone bool, fill func(share)) ([]float32, error) {
			r := newReduction(net, exact, groups, atOnce, 3)
			rng := rand.New(rand.NewPCG(1, 2))
			local := r.shares(groups / atOnce)
			for _, s := range local {
				for _, v := range [][]float32{s.grads, s.query, s.key} {
					for i := range v {
						v[i] = float32(rng.NormFloat64())
					}
				}
				fill(s)
			}
			for i := range r.sum { // of the step before
				r.sum[i] = 77
			}
			final := make(chan int, len(r.buckets))
			for _, i := range rng.Perm(len(r.buckets)) {
				final <- i
			}
			err := r.run(t.Context(), soloRing{}, 9, local, final, alone)
			return r.sum, err
		}
		nothing := func(share) {}
		want, err := run(false, nothing)
		if err != nil {
			t.Fatal(err)
		}
		got, err := run(true, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
			t.Errorf("exact %v: alone the sums are others", exact)
		}

		infinite := func(s share) {
			for _, param := range []int{5, 3, 11} {
				s.grads[net.NumParams()+net.Params[param].Offset] = float32(math.NaN())
			}
		}
		_, first := run(false, infinite)
		for range 20 {
			_, err := run(true, infinite)
			var a, b *DivergedError
			if !errors.As(first, &a) || !errors.As(err, &b) || *a != *b {
				t.Fatalf("exact %v: alone %v, else %v", exact, err, first)
			}
		}
	}
}

// A global batch of one group: its vector is the sum as the engine wrote it,
// and what a member without it adds changes no bit of any value.
func TestReductionOfOneGroup(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{ImageSize: 28, Channels: 1, Dim: 32, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	run := func(r *reduction, local []share, alone bool) error {
		final := make(chan int, len(r.buckets))
		for i := range r.buckets {
			final <- i
		}
		return r.run(t.Context(), soloRing{}, 9, local, final, alone)
	}
	for _, exact := range []bool{true, false} {
		holder, other := newReduction(net, exact, 1, 1, 2), newReduction(net, exact, 1, 1, 2)
		for i := range other.sum { // of the step before
			other.sum[i] = 77
		}
		if err := run(other, nil, false); err != nil {
			t.Fatal(err)
		}
		for _, alone := range []bool{true, false} {
			s := holder.shares(1)[0]
			want := make([]float32, 0, len(holder.sum))
			rng := rand.New(rand.NewPCG(1, 2))
			odd := []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.MaxFloat32, 1 + 0x1p-23}
			for _, v := range [][]float32{s.grads, s.query, s.key} {
				for i := range v {
					if v[i] = float32(rng.NormFloat64()); i%3 == 0 {
						v[i] = odd[rng.IntN(len(odd))]
					}
				}
				want = append(want, v...)
			}
			if err := run(holder, []share{s}, alone); err != nil {
				t.Fatal(err)
			}
			for i, x := range holder.sum {
				if got := x + other.sum[i]; math.Float32bits(x) != math.Float32bits(want[i]) || math.Float32bits(got) != math.Float32bits(x) {
					t.Fatalf("exact %v, alone %v, value %d: %g became %g, and with another member %g", exact, alone, i, want[i], x, got)
				}
			}
			s.grads[net.Params[4].Offset] = float32(math.NaN())
			var diverged *DivergedError
			if err := run(holder, []share{s}, alone); !errors.As(err, &diverged) || diverged.Tensor != "gradient of "+net.Params[4].Name {
				t.Errorf("exact %v, alone %v: NaN in %s: %v", exact, alone, net.Params[4].Name, err)
			}
		}
	}
}
