package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRunDoesEveryTaskOnce(t *testing.T) {
	for _, threads := range []int{0, 1, 2, 3, 7} {
		team := NewTeam(threads)
		if want := max(threads, 1); team.Threads() != want {
			t.Errorf("Threads() = %d, want %d", team.Threads(), want)
		}
		for _, n := range []int{0, 1, 2, 5, 100} {
			done := make([]atomic.Int32, n)
			busy := make([]atomic.Int32, team.Threads())
			team.Run(n, func(task, worker int) {
				if busy[worker].Add(1) != 1 {
					t.Errorf("worker %d runs two tasks at once", worker)
				}
				done[task].Add(1)
				busy[worker].Add(-1)
			})
			for i := range done {
				if got := done[i].Load(); got != 1 {
					t.Errorf("threads %d: task %d of %d ran %d times", threads, i, n, got)
				}
			}
		}
		team.Close()
		team.Close()
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	team := NewTeam(2)
	defer team.Close()
	f := func(task, worker int) {}
	if n := testing.AllocsPerRun(100, func() { team.Run(8, f) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func TestUseAfterClose(t *testing.T) {
	team := NewTeam(2)
	team.Close()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	team.Run(1, func(int, int) {})
}

// TestSharedTeam: goroutines that share a Team get the results that each gets
// alone.
func TestSharedTeam(t *testing.T) {
	team := NewTeam(2)
	defer team.Close()
	var group sync.WaitGroup
	for seed := range uint64(4) {
		group.Go(func() {
			c := Conv{3, 5, 6, 6, 3, 1, 1}
			for range 3 {
				checkConv(t, []*Team{team}, rand.New(rand.NewPCG(seed, 0)), c, 2)
				checkGemm(t, []*Team{team}, rand.New(rand.NewPCG(seed, 1)), 9, 20, 7)
			}
		})
	}
	group.Wait()
}

// everything runs all kernels and returns all results in one slice.
func everything(team *Team, r *rand.Rand, c Conv, batch int) []float32 {
	inN, outN := batch*c.InC*c.H*c.W, batch*c.OutC*c.OutH()*c.OutW()
	x, w := random(r, inN), random(r, c.OutC*c.InC*c.Kernel*c.Kernel)
	gamma, beta := random(r, c.OutC), random(r, c.OutC)
	var results [][]float32
	out := func(n int) []float32 {
		b := garbage(n)
		results = append(results, b)
		return b
	}

	plan := NewConvolution(team, c)
	y, z, sum := out(outN), out(outN), out(outN)
	mean, invStd, variance := out(c.OutC), out(c.OutC), out(c.OutC)
	plan.Forward(batch, x, w, y)
	bn := BatchNorm{batch, c.OutC, c.OutH() * c.OutW(), true}
	team.BatchNormForward(bn, y, gamma, beta, z, mean, invStd, variance)
	team.AddReLU(y, z, sum)
	rows := batch * c.OutC
	pooled, embedded, norms := out(rows), out(rows), out(batch)
	team.GlobalAvgPoolForward(rows, bn.Pixels, sum, pooled)
	team.L2NormalizeForward(batch, c.OutC, pooled, embedded, norms)
	logits := out(batch * batch)
	team.NT(batch, batch, c.OutC, embedded, pooled, logits, false)
	team.NN(batch, c.OutC, batch, logits, pooled, embedded, true)

	dEmbedded, dSum, dy := out(rows), out(outN), out(outN)
	team.L2NormalizeBackward(batch, c.OutC, embedded, norms, pooled, dEmbedded)
	team.GlobalAvgPoolBackward(rows, bn.Pixels, dEmbedded, dSum)
	team.ReLUBackward(sum, dSum, dSum)
	dgamma, dbeta := out(c.OutC), out(c.OutC)
	team.BatchNormBackward(bn, y, z, dSum, gamma, mean, invStd, dy, dgamma, dbeta)
	dx, dw := out(inN), out(len(w))
	plan.BackwardData(batch, dy, w, dx)
	plan.BackwardWeights(batch, x, dy, dw)
	return slices.Concat(results...)
}

// TestThreadsDoNotChangeBits, and neither do AVX2 and AVX-512.
func TestThreadsDoNotChangeBits(t *testing.T) {
	for _, s := range []struct {
		Conv
		batch int
	}{
		{Conv{3, 16, 9, 9, 3, 1, 1}, 5},
		{Conv{64, 40, 7, 6, 3, 2, 1}, 11},
		{Conv{24, 9, 8, 8, 1, 1, 0}, 2},
	} {
		want := map[ISA][]float32{}
		for _, isa := range Available() {
			for _, threads := range []int{1, 2, 3, 7} {
				team := NewTeamFor(isa, threads)
				got := everything(team, rand.New(rand.NewPCG(19, 20)), s.Conv, s.batch)
				team.Close()
				if want[isa] == nil {
					want[isa] = got
				}
				same(t, fmt.Sprintf("%s with %d threads: result", isa, threads), got, want[isa])
			}
		}
		if want[AVX512] != nil {
			same(t, "avx512 against avx2: result", want[AVX512], want[AVX2])
		}
	}
}

// TestElementwiseBitsAgree: outside matrix products, all instruction sets give
// the same bits.
func TestElementwiseBitsAgree(t *testing.T) {
	bn := BatchNorm{3, 4, 77, true}
	n := 3 * 4 * 77
	var want []float32
	for _, isa := range Available() {
		r := rand.New(rand.NewPCG(21, 22))
		team := NewTeamFor(isa, 2)
		x, dy, gamma, beta := random(r, n), random(r, n), random(r, 4), random(r, 4)
		y, mean, invStd, variance := garbage(n), garbage(4), garbage(4), garbage(4)
		dx, dgamma, dbeta := garbage(n), garbage(4), garbage(4)
		team.BatchNormForward(bn, x, gamma, beta, y, mean, invStd, variance)
		team.BatchNormBackward(bn, x, y, dy, gamma, mean, invStd, dx, dgamma, dbeta)
		team.Close()
		got := slices.Concat(y, mean, invStd, variance, dx, dgamma, dbeta)
		if want == nil {
			want = got
		}
		same(t, string(isa), got, want)
	}
}

func TestKernelsAllocateNothing(t *testing.T) {
	team := NewTeam(2)
	defer team.Close()
	c := Conv{4, 8, 6, 6, 3, 1, 1}
	plan := NewConvolution(team, c)
	x, w, y := make([]float32, 3*4*36), make([]float32, 8*4*9), make([]float32, 3*8*36)
	eight := make([]float32, 8)
	step := func() {
		plan.Forward(3, x, w, y)
		plan.BackwardData(3, y, w, x)
		plan.BackwardWeights(3, x, y, w)
		team.BatchNormForward(BatchNorm{3, 8, 36, true}, y, eight, eight, y, eight, eight, eight)
		team.BatchNormBackward(BatchNorm{3, 8, 36, true}, y, y, y, eight, eight, eight, y, eight, eight)
		team.ReLU(y, y)
		team.NT(3, 3, 36, y[:108], y[108:216], y[216:225], false)
	}
	// Which worker takes a task is chance: let every scratch memory grow.
	for range 200 {
		step()
	}
	if n := testing.AllocsPerRun(100, step); n >= 1 {
		t.Errorf("%v allocations a step", n)
	}
}

func TestDescribe(t *testing.T) {
	if d := Describe(); !slices.Contains([]string{"avx512", "avx2", "generic"}, d) {
		t.Errorf("Describe() = %q", d)
	}
	if list := Available(); list[len(list)-1] != Generic {
		t.Errorf("Available() = %q: generic must always be there, last", list)
	}
}
