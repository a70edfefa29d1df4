package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestElementwise(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	forEachISA(t, func(t *testing.T, team *Team) {
		for _, n := range []int{0, 1, 15, 16, 33, elementwiseBlock + 5} {
			x, y := random(r, n), random(r, n)
			if n > 20 {
				x[3], x[17], y[3] = 0, float32(math.Copysign(0, -1)), 0
			}
			sum, sumReLU, relu, back := garbage(n), garbage(n), garbage(n), garbage(n)
			team.Add(x, y, sum)
			team.AddReLU(x, y, sumReLU)
			team.ReLU(x, relu)
			team.ReLUBackward(relu, y, back)
			for i := range n {
				if want := x[i] + y[i]; sum[i] != want || sumReLU[i] != max(want, 0) {
					t.Fatalf("%v + %v = %v, with ReLU %v", x[i], y[i], sum[i], sumReLU[i])
				}
				wantBack := float32(0)
				if x[i] > 0 {
					wantBack = y[i]
				}
				if relu[i] != max(x[i], 0) || back[i] != wantBack {
					t.Fatalf("ReLU(%v) = %v, gradient of %v: %v, want %v", x[i], relu[i], y[i], back[i], wantBack)
				}
			}
		}
	})
}

func TestMaxPool(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, p := range []MaxPool{
		{2, 8, 8, 3, 2, 1}, {3, 7, 5, 3, 2, 1}, {1, 4, 6, 2, 2, 0}, {1, 5, 5, 3, 1, 1}, {1, 1, 1, 3, 2, 1},
	} {
		const batch = 2
		x := random(r, batch*p.C*p.H*p.W)
		n := batch * p.C * p.OutH() * p.OutW()
		dy := random(r, n)
		wantY, wantDX := make([]float64, n), make([]float64, len(x))
		for i := range n {
			plane, oy, ox := i/(p.OutH()*p.OutW()), i/p.OutW()%p.OutH(), i%p.OutW()
			best := -1
			for u := range p.Kernel {
				for v := range p.Kernel {
					y, x0 := oy*p.Stride+u-p.Pad, ox*p.Stride+v-p.Pad
					if y < 0 || y >= p.H || x0 < 0 || x0 >= p.W {
						continue
					}
					if at := (plane*p.H+y)*p.W + x0; best < 0 || x[at] > x[best] {
						best = at
					}
				}
			}
			wantY[i] = float64(x[best])
			wantDX[best] += float64(dy[i])
		}
		forEachISA(t, func(t *testing.T, team *Team) {
			y, argmax, dx := garbage(n), make([]int32, n), garbage(len(x))
			team.MaxPoolForward(p, batch, x, y, argmax)
			team.MaxPoolBackward(p, batch, dy, argmax, dx)
			near(t, "y", y, wantY, 0)
			near(t, "dx", dx, wantDX, 1e-6)
		})
	}
}

// TestMaxPoolTie: the first of equal maxima gets the gradient, as in torch.
func TestMaxPoolTie(t *testing.T) {
	team := NewTeam(1)
	defer team.Close()
	p := MaxPool{C: 1, H: 2, W: 2, Kernel: 2, Stride: 2}
	y, argmax, dx := garbage(1), make([]int32, 1), garbage(4)
	team.MaxPoolForward(p, 1, []float32{1, 5, 5, 5}, y, argmax)
	team.MaxPoolBackward(p, 1, []float32{2}, argmax, dx)
	same(t, "dx", dx, []float32{0, 2, 0, 0})
}

func TestGlobalAvgPool(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	const rows, pixels = 130, 49
	x, dy := random(r, rows*pixels), random(r, rows)
	wantY, wantDX := make([]float64, rows), make([]float64, len(x))
	for i, v := range x {
		wantY[i/pixels] += float64(v) / pixels
		wantDX[i] = float64(dy[i/pixels]) / pixels
	}
	forEachISA(t, func(t *testing.T, team *Team) {
		y, dx := garbage(rows), garbage(len(x))
		team.GlobalAvgPoolForward(rows, pixels, x, y)
		team.GlobalAvgPoolBackward(rows, pixels, dy, dx)
		near(t, "y", y, wantY, 1e-7)
		near(t, "dx", dx, wantDX, 1e-7)
	})
}

func TestLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	const m, in, out = 9, 21, 13
	x, w, b, dy := random(r, m*in), random(r, out*in), random(r, out), random(r, m*out)
	wantY, wantDX, wantDW, wantDB := make([]float64, m*out), make([]float64, m*in), make([]float64, out*in), make([]float64, out)
	for i := range m {
		for o := range out {
			wantY[i*out+o] = float64(b[o])
			wantDB[o] += float64(dy[i*out+o])
			for k := range in {
				wantY[i*out+o] += float64(x[i*in+k]) * float64(w[o*in+k])
				wantDX[i*in+k] += float64(dy[i*out+o]) * float64(w[o*in+k])
				wantDW[o*in+k] += float64(dy[i*out+o]) * float64(x[i*in+k])
			}
		}
	}
	forEachISA(t, func(t *testing.T, team *Team) {
		y, dx, dw, db := garbage(m*out), garbage(m*in), garbage(out*in), garbage(out)
		team.LinearForward(m, in, out, x, w, b, y)
		team.LinearBackward(m, in, out, x, w, dy, dx, dw, db)
		near(t, "y", y, wantY, 1e-6)
		near(t, "dx", dx, wantDX, 1e-6)
		near(t, "dw", dw, wantDW, 1e-6)
		near(t, "db", db, wantDB, 1e-6)
		again := garbage(out * in)
		team.LinearBackward(m, in, out, x, w, dy, nil, again, db)
		same(t, "dw without dx", again, dw)
	})
}

func TestL2Normalize(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	const rows, d = 20, 11
	x, dy := random(r, rows*d), random(r, rows*d)
	clear(x[:d])      // length 0
	clear(x[d : 2*d]) // length below the limit
	x[d] = 1e-13
	wantY, wantDX := make([]float64, rows*d), make([]float64, rows*d)
	for row := range rows {
		var squares, along float64
		for i := row * d; i < (row+1)*d; i++ {
			squares += float64(x[i]) * float64(x[i])
			along += float64(x[i]) * float64(dy[i])
		}
		norm := math.Sqrt(squares)
		for i := row * d; i < (row+1)*d; i++ {
			if norm < 1e-12 {
				wantY[i], wantDX[i] = float64(x[i])/1e-12, float64(dy[i])/1e-12
				continue
			}
			wantY[i] = float64(x[i]) / norm
			wantDX[i] = float64(dy[i])/norm - float64(x[i])*along/(norm*norm*norm)
		}
	}
	forEachISA(t, func(t *testing.T, team *Team) {
		y, norms, dx := garbage(rows*d), garbage(rows), garbage(rows*d)
		team.L2NormalizeForward(rows, d, x, y, norms)
		team.L2NormalizeBackward(rows, d, y, norms, dy, dx)
		near(t, "y", y, wantY, 1e-6)
		near(t, "dx below the limit", dx[:2*d], wantDX[:2*d], 1e-6)
		near(t, "dx", dx[2*d:], wantDX[2*d:], 1e-6)
	})
}

// BenchmarkLayers measures everything but products, on ResNet-20's largest
// activation. Bytes are those that must be read and written once.
func BenchmarkLayers(b *testing.B) {
	bn := BatchNorm{32, 16, 784, true}
	n := bn.Batch * bn.Channels * bn.Pixels
	r := rand.New(rand.NewPCG(1, 2))
	x, y, dy, dx := random(r, n), random(r, n), random(r, n), random(r, n)
	channel := func() []float32 { return random(r, bn.Channels) }
	gamma, beta, mean, invStd, variance := channel(), channel(), channel(), channel(), channel()
	team := NewTeam(1)
	defer team.Close()
	for _, s := range []struct {
		name    string
		tensors int
		run     func()
	}{
		{"BatchNormForward", 2, func() { team.BatchNormForward(bn, x, gamma, beta, y, mean, invStd, variance) }},
		{"BatchNormBackward", 4, func() { team.BatchNormBackward(bn, x, y, dy, gamma, mean, invStd, dx, gamma, beta) }},
		{"AddReLU", 3, func() { team.AddReLU(x, y, dx) }},
		{"ReLUBackward", 3, func() { team.ReLUBackward(y, dy, dx) }},
		{"GlobalAvgPoolForward", 1, func() { team.GlobalAvgPoolForward(n/784, 784, x, y[:n/784]) }},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.SetBytes(int64(4 * n * s.tensors))
			b.ReportAllocs()
			for b.Loop() {
				s.run()
			}
		})
	}
}
