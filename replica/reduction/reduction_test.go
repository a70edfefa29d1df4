package reduction_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/model/network"
	"mochi/replica/reduction"
	"mochi/replica/replicatest"
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
		run := func(alone bool, fill func(reduction.Terms)) ([]float32, error) {
			r := reduction.New(net, reduction.Config{Exact: exact, Groups: groups, AtOnce: atOnce, Threads: 3})
			rng := rand.New(rand.NewPCG(1, 2))
			for _, s := range r.Begin(groups / atOnce) {
				for _, v := range [][]float32{s.Grads, s.Query, s.Key} {
					for i := range v {
						v[i] = float32(rng.NormFloat64())
					}
				}
				fill(s)
			}
			for i := range r.Vector() { // of the step before
				r.Vector()[i] = 77
			}
			for _, param := range rng.Perm(len(net.Params)) {
				r.Final(param)
			}
			r.Start(t.Context(), replicatest.Ring{}, 9, alone)
			r.Complete()
			err := r.Wait()
			return r.Vector(), err
		}
		nothing := func(reduction.Terms) {}
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

		infinite := func(s reduction.Terms) {
			for _, param := range []int{5, 3, 11} {
				s.Grads[net.NumParams()+net.Params[param].Offset] = float32(math.NaN())
			}
		}
		_, first := run(false, infinite)
		for range 20 {
			_, err := run(true, infinite)
			var a, b *reduction.DivergedError
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
	// run is a step whose terms fill writes; a member without a group has none.
	run := func(r *reduction.Reduction, units int, alone bool, fill func(reduction.Terms)) error {
		for _, s := range r.Begin(units) {
			fill(s)
			for param := range net.Params {
				r.Final(param)
			}
		}
		r.Start(t.Context(), replicatest.Ring{}, 9, alone)
		r.Complete()
		return r.Wait()
	}
	for _, exact := range []bool{true, false} {
		cfg := reduction.Config{Exact: exact, Groups: 1, AtOnce: 1, Threads: 2}
		holder, other := reduction.New(net, cfg), reduction.New(net, cfg)
		for i := range other.Vector() { // of the step before
			other.Vector()[i] = 77
		}
		if err := run(other, 0, false, nil); err != nil {
			t.Fatal(err)
		}
		for _, alone := range []bool{true, false} {
			want := make([]float32, 0, len(holder.Vector()))
			rng := rand.New(rand.NewPCG(1, 2))
			odd := []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, -math.MaxFloat32, 1 + 0x1p-23}
			err := run(holder, 1, alone, func(s reduction.Terms) {
				for _, v := range [][]float32{s.Grads, s.Query, s.Key} {
					for i := range v {
						if v[i] = float32(rng.NormFloat64()); i%3 == 0 {
							v[i] = odd[rng.IntN(len(odd))]
						}
					}
					want = append(want, v...)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range holder.Vector() {
				if got := x + other.Vector()[i]; math.Float32bits(x) != math.Float32bits(want[i]) || math.Float32bits(got) != math.Float32bits(x) {
					t.Fatalf("exact %v, alone %v, value %d: %g became %g, and with another member %g", exact, alone, i, want[i], x, got)
				}
			}
			err = run(holder, 1, alone, func(s reduction.Terms) { s.Grads[net.Params[4].Offset] = float32(math.NaN()) })
			var diverged *reduction.DivergedError
			if !errors.As(err, &diverged) || diverged.Tensor != "gradient of "+net.Params[4].Name {
				t.Errorf("exact %v, alone %v: NaN in %s: %v", exact, alone, net.Params[4].Name, err)
			}
		}
	}
}

// A step that ends early leaves nothing running: before Start there is nothing to
// wait for, after it the missing terms are the error; the next step is whole again.
func TestReductionOfAStepThatEndsEarly(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{ImageSize: 28, Channels: 1, Dim: 32, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	r := reduction.New(net, reduction.Config{Exact: true, Groups: 2, AtOnce: 1})
	r.Begin(1)
	r.Final(0)
	if err := r.Wait(); err != nil {
		t.Errorf("before Start: %v", err)
	}
	r.Begin(1)
	r.Start(t.Context(), replicatest.Ring{}, 1, false)
	r.Final(len(net.Params) - 1)
	if err := r.Wait(); err == nil {
		t.Error("not all terms were final, and nobody says so")
	}
	r.Begin(0)
	r.Start(t.Context(), replicatest.Ring{}, 1, false)
	r.Complete()
	if err := r.Wait(); err != nil {
		t.Error(err)
	}
}
