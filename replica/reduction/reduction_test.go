package reduction_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mochi/allreduce"
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

// badRing is a ring whose member changes its sums on the way.
type badRing struct {
	replicatest.Ring
	change func(data []float32)
}

func (r badRing) AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error {
	r.change(data)
	return r.Ring.AllReduceSumChecked(ctx, tag, data, check)
}

// A second look changes no bit, finds nothing where all is right, and in as many
// steps as a vector has parts it finds any element that was added up wrongly, by
// one bit, whatever it was: a gradient or a statistic.
func TestSecondLook(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{ImageSize: 28, Channels: 1, Dim: 32, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	size := net.NumParams() + 2*net.NumBuffers()
	rng := rand.New(rand.NewPCG(5, 2))
	for _, exact := range []bool{true, false} {
		for _, c := range []struct{ groups, units, atOnce int }{{6, 3, 2}, {6, 1, 2}, {6, 0, 2}, {1, 1, 1}, {1, 0, 1}} {
			reductions := map[bool]*reduction.Reduction{}
			for _, check := range []bool{false, true} {
				r := reduction.New(net, reduction.Config{Exact: exact, Groups: c.groups, AtOnce: c.atOnce, Check: check})
				reductions[check] = r
				rng := rand.New(rand.NewPCG(1, 2))
				for _, s := range r.Begin(c.units) { // they stay from step to step
					for n, v := range [][]float32{s.Grads, s.Query, s.Key} {
						for i := range v {
							if v[i] = rng.Float32() * float32(n+1); rng.IntN(20) == 0 {
								v[i] = 0
							}
						}
					}
				}
			}
			run := func(check bool, step int64, ring reduction.Ring) ([]float32, allreduce.Found) {
				r := reductions[check]
				for range r.Begin(c.units) {
					for param := range net.Params {
						r.Final(param)
					}
				}
				r.Start(t.Context(), ring, step, true)
				r.Complete()
				if err := r.Wait(); err != nil {
					t.Fatal(err)
				}
				found, looked := r.Checked()
				if looked != check {
					t.Fatalf("it looked: %v", looked)
				}
				return r.Vector(), found
			}
			want, _ := run(false, 1, replicatest.Ring{})
			got, found := run(true, 1, replicatest.Ring{})
			if found.Wrong > 0 || !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Fatalf("exact %v, %+v: found %+v, or other sums", exact, c, found)
			}
			if c.groups == 1 {
				continue // nothing is added here
			}
			for range 3 {
				at, bit := rng.IntN(size), rng.IntN(31)
				ring := badRing{change: func() func(data []float32) {
					seen := 0
					return func(data []float32) { // bucket after bucket, in order
						if i := at - seen; i >= 0 && i < len(data) {
							data[i] = math.Float32frombits(math.Float32bits(data[i]) ^ 1<<bit)
						}
						if seen += len(data); seen == size {
							seen = 0
						}
					}
				}()}
				found := 0
				for step := range int64(256) {
					if _, f := run(true, step, ring); f.Wrong > 0 {
						found++
						break
					}
				}
				if found == 0 {
					t.Errorf("exact %v, %+v: bit %d of element %d of %d was never found", exact, c, bit, at, size)
				}
			}
		}
	}
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What the second look costs of a step: ResNet-50, two groups, one thread.
func BenchmarkSecondLook(b *testing.B) {
	net, err := network.Build("resnet50", network.Options{ImageSize: 224, Channels: 3, Dim: 128, Head: network.HeadMLP})
	if err != nil {
		b.Fatal(err)
	}
	for _, check := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[check], func(b *testing.B) {
			r := reduction.New(net, reduction.Config{Exact: true, Groups: 2, AtOnce: 1, Check: check})
			step, before := int64(0), processorTime(b)
			defer func() {
				b.ReportMetric(float64(processorTime(b)-before)/float64(step)/1e6, "ms-of-processor/op")
			}()
			for b.Loop() {
				for _, s := range r.Begin(2) {
					if s.Grads[1] == 0 {
						for i := range s.Grads {
							s.Grads[i] = float32(i%1000) / 1000
						}
					}
				}
				for param := range net.Params {
					r.Final(param)
				}
				step++
				r.Start(b.Context(), replicatest.Ring{}, step, true)
				r.Complete()
				if err := r.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
