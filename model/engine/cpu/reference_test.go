package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The references: every formula written down plainly, in float64.

// forEachISA runs a test on every instruction set of this CPU, with several
// numbers of threads.
func forEachISA(t *testing.T, f func(t *testing.T, team *Team)) {
	for _, isa := range Available() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/threads=%d", isa, threads), func(t *testing.T) {
				team := NewTeamFor(isa, threads)
				defer team.Close()
				f(t, team)
			})
		}
	}
}

// allTeams starts a team of every instruction set and several numbers of
// threads.
func allTeams(t testing.TB) []*Team {
	var teams []*Team
	for _, isa := range Available() {
		for _, threads := range []int{1, 3} {
			teams = append(teams, NewTeamFor(isa, threads))
		}
	}
	t.Cleanup(func() {
		for _, team := range teams {
			team.Close()
		}
	})
	return teams
}

// label names a team in a failure.
func label(team *Team) string { return fmt.Sprintf("%s, %d threads: ", team.ISA(), team.Threads()) }

// random returns n values in [−1, 1).
func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*r.Float32() - 1
	}
	return x
}

// garbage returns n values that no result may contain.
func garbage(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x
}

// near fails unless |got − want| ≤ tolerance · max(1, max|want|) everywhere.
func near(t *testing.T, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: length %d, want %d", name, len(got), len(want))
		return
	}
	scale := 1.0
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - want[i]); !(d <= tolerance*scale) {
			t.Errorf("%s[%d] = %g, want %g (off by %.3g of the largest, allowed %.3g)", name, i, got[i], want[i], d/scale, tolerance)
			return
		}
	}
}

// same fails unless both hold the same bits.
func same(t *testing.T, name string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: length %d, want %d", name, len(got), len(want))
		return
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s[%d] = %v, want the same bits as %v", name, i, got[i], want[i])
			return
		}
	}
}

// plainGemm is c[i,j] = Σ_k a(i,k)·b(k,j).
func plainGemm(m, n, k int, a, b func(i, j int) float32) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		for j := range n {
			for l := range k {
				c[i*n+j] += float64(a(i, l)) * float64(b(l, j))
			}
		}
	}
	return c
}

// plainConv calls visit for every product of the convolution's sum.
func plainConv(c Conv, batch int, visit func(x, w, y int)) {
	k, oh, ow := c.Kernel, c.OutH(), c.OutW()
	for b := range batch {
		for o := range c.OutC {
			for i := range oh {
				for j := range ow {
					for ch := range c.InC {
						for u := range k {
							for v := range k {
								y, x := i*c.Stride+u-c.Pad, j*c.Stride+v-c.Pad
								if y < 0 || y >= c.H || x < 0 || x >= c.W {
									continue
								}
								visit(((b*c.InC+ch)*c.H+y)*c.W+x, ((o*c.InC+ch)*k+u)*k+v, ((b*c.OutC+o)*oh+i)*ow+j)
							}
						}
					}
				}
			}
		}
	}
}
