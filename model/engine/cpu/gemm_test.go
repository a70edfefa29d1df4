package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// at reads a row-major matrix with n columns.
func at(x []float32, n int) func(i, j int) float32 {
	return func(i, j int) float32 { return x[i*n+j] }
}

// swap exchanges the indices.
func swap(f func(i, j int) float32) func(i, j int) float32 {
	return func(i, j int) float32 { return f(j, i) }
}

func TestGemm(t *testing.T) {
	shapes := [][3]int{
		{1, 1, 1}, {1, 48, 3}, {8, 48, 16}, {9, 49, 17}, {7, 47, 193}, {3, 2, 0},
		{16, 16, 9}, {5, 31, 192}, {65, 97, 7}, {9, 50, 385}, {2, 200, 33}, {130, 5, 50}, {3, 100, 0},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		shapes = append(shapes, [3]int{1 + r.IntN(40), 1 + r.IntN(120), 1 + r.IntN(60)})
	}
	teams := allTeams(t)
	for _, s := range shapes {
		checkGemm(t, teams, r, s[0], s[1], s[2])
	}
}

func checkGemm(t *testing.T, teams []*Team, r *rand.Rand, m, n, k int) {
	t.Helper()
	a, b, start := random(r, m*k), random(r, k*n), random(r, m*n)
	for _, op := range []struct {
		name string
		run  func(t *Team, m, n, k int, a, b, c []float32, acc bool)
		a, b func(i, j int) float32
	}{
		{"NN", (*Team).NN, at(a, k), at(b, n)},
		{"NT", (*Team).NT, at(a, k), swap(at(b, k))},
		{"TN", (*Team).TN, swap(at(a, m)), at(b, n)},
	} {
		want := plainGemm(m, n, k, op.a, op.b)
		added := make([]float64, m*n)
		for i, v := range want {
			added[i] = v + float64(start[i])
		}
		for _, team := range teams {
			name := fmt.Sprintf("%s%s %d×%d×%d: c", label(team), op.name, m, n, k)
			c := garbage(m * n)
			op.run(team, m, n, k, a, b, c, false)
			near(t, name, c, want, 1e-5)
			copy(c, start)
			op.run(team, m, n, k, a, b, c, true)
			near(t, name+" added", c, added, 1e-5)
		}
	}
}

func FuzzGemm(f *testing.F) {
	f.Add(uint8(3), uint8(50), uint8(20), uint64(1))
	f.Add(uint8(0), uint8(0), uint8(0), uint64(2))
	f.Add(uint8(70), uint8(100), uint8(0), uint64(3))
	f.Fuzz(func(t *testing.T, m, n, k uint8, seed uint64) {
		checkGemm(t, allTeams(t), rand.New(rand.NewPCG(seed, 0)), 1+int(m), 1+int(n), int(k))
	})
}

func BenchmarkGemm(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	team := NewTeam(1)
	defer team.Close()
	for _, s := range []struct {
		name    string
		m, n, k int
		run     func(m, n, k int, a, b, c []float32, acc bool)
	}{
		{"NT/logits", 256, 16384, 128, team.NT},
		{"NN/gradient", 256, 128, 16384, team.NN},
		{"TN/linear", 128, 512, 256, team.TN},
		{"NN/square", 512, 512, 512, team.NN},
	} {
		b.Run(s.name, func(b *testing.B) {
			x, y, z := random(r, s.m*s.k), random(r, s.k*s.n), make([]float32, s.m*s.n)
			measure(b, 2*float64(s.m)*float64(s.n)*float64(s.k), func() {
				s.run(s.m, s.n, s.k, x, y, z, false)
			})
		})
	}
}

// measure runs f and reports its speed: the median and, since other work on
// the machine only ever slows it down, the best run.
func measure(b *testing.B, flops float64, f func()) {
	b.ReportAllocs()
	f() // grow the scratch memory
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		f()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(flops/took[len(took)/2].Seconds()/1e9, "p50-GFLOP/s")
	b.ReportMetric(flops/took[0].Seconds()/1e9, "best-GFLOP/s")
}
