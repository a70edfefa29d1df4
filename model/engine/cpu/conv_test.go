package cpu

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// convShapes cover what ResNets use and the odd cases around it.
var convShapes = []struct {
	Conv
	batch int
}{
	{Conv{3, 16, 9, 9, 3, 1, 1}, 2},   // stem
	{Conv{16, 16, 7, 7, 3, 1, 1}, 3},  // body
	{Conv{16, 32, 8, 8, 3, 2, 1}, 2},  // stage change
	{Conv{5, 7, 9, 6, 3, 2, 1}, 1},    // odd, not square
	{Conv{16, 32, 8, 8, 1, 2, 0}, 2},  // projection
	{Conv{9, 17, 5, 5, 1, 1, 0}, 4},   // bottleneck
	{Conv{3, 8, 23, 21, 7, 2, 3}, 1},  // ImageNet stem
	{Conv{4, 5, 6, 6, 3, 1, 0}, 2},    // no padding
	{Conv{2, 3, 7, 5, 5, 3, 2}, 2},    // stride 3
	{Conv{2, 3, 5, 5, 2, 1, 1}, 1},    // even kernel
	{Conv{2, 2, 4, 4, 1, 1, 1}, 1},    // padding beyond the kernel
	{Conv{1, 1, 1, 1, 1, 1, 0}, 1},    // a single product
	{Conv{2, 3, 1, 1, 3, 2, 1}, 2},    // image smaller than the stride
	{Conv{3, 2, 10, 3, 3, 4, 1}, 2},   // stride above the kernel
	{Conv{64, 33, 4, 4, 3, 1, 1}, 9},  // two blocks of channels, chunks of samples
	{Conv{40, 8, 32, 32, 1, 1, 0}, 1}, // planes of 4 KiB
	{Conv{3, 8, 32, 32, 1, 1, 0}, 1},
	{Conv{24, 50, 3, 3, 3, 1, 1}, 2}, // more than one strip
}

func TestConv(t *testing.T) {
	teams := allTeams(t)
	for _, s := range convShapes {
		checkConv(t, teams, rand.New(rand.NewPCG(3, 4)), s.Conv, s.batch)
	}
}

func checkConv(t *testing.T, teams []*Team, r *rand.Rand, c Conv, batch int) {
	t.Helper()
	x := random(r, batch*c.InC*c.H*c.W)
	w := random(r, c.OutC*c.InC*c.Kernel*c.Kernel)
	dy := random(r, batch*c.OutC*c.OutH()*c.OutW())
	wantY, wantDX, wantDW := make([]float64, len(dy)), make([]float64, len(x)), make([]float64, len(w))
	plainConv(c, batch, func(xi, wi, yi int) {
		wantY[yi] += float64(x[xi]) * float64(w[wi])
		wantDX[xi] += float64(dy[yi]) * float64(w[wi])
		wantDW[wi] += float64(dy[yi]) * float64(x[xi])
	})

	for _, team := range teams {
		plan := NewConvolution(team, c)
		y, dx, dw := garbage(len(dy)), garbage(len(x)), garbage(len(w))
		plan.Forward(batch, x, w, y)
		plan.BackwardData(batch, dy, w, dx)
		plan.BackwardWeights(batch, x, dy, dw)
		name := fmt.Sprintf("%s%+v batch %d: ", label(team), c, batch)
		near(t, name+"y", y, wantY, 1e-5)
		near(t, name+"dx", dx, wantDX, 1e-5)
		near(t, name+"dw", dw, wantDW, 1e-5)
	}
}

func FuzzConv(f *testing.F) {
	f.Add(uint8(3), uint8(8), uint8(9), uint8(11), uint8(3), uint8(2), uint8(1), uint8(2))
	f.Add(uint8(16), uint8(16), uint8(6), uint8(6), uint8(1), uint8(1), uint8(0), uint8(5))
	f.Fuzz(func(t *testing.T, inC, outC, h, w, kernel, stride, pad, batch uint8) {
		c := Conv{
			InC: 1 + int(inC%40), OutC: 1 + int(outC%40), H: 1 + int(h%14), W: 1 + int(w%14),
			Kernel: 1 + int(kernel%5), Stride: 1 + int(stride%4), Pad: int(pad % 4),
		}
		if c.Validate() != nil {
			return // not a convolution
		}
		checkConv(t, allTeams(t), rand.New(rand.NewPCG(uint64(h), uint64(w))), c, 1+int(batch%4))
	})
}

func TestConvValidate(t *testing.T) {
	if err := (Conv{3, 8, 32, 32, 3, 1, 1}).Validate(); err != nil {
		t.Errorf("a valid convolution: %v", err)
	}
	for _, c := range []Conv{{}, {3, 8, 2, 9, 5, 1, 1}, {3, 8, 9, 9, 3, 0, 1}, {3, 8, 9, 9, 3, 1, -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v passed", c)
		}
	}
}

func TestConvNamesTheWrongBuffer(t *testing.T) {
	team := NewTeam(1)
	defer team.Close()
	plan := NewConvolution(team, Conv{1, 1, 4, 4, 3, 1, 1})
	defer func() {
		if text, _ := recover().(string); !strings.Contains(text, "dy has 15 elements, want 16") {
			t.Errorf("panic %q", text)
		}
	}()
	plan.BackwardData(1, make([]float32, 15), make([]float32, 9), make([]float32, 16))
}

// BenchmarkConv measures ResNet-20's layers at 28×28 and a few of ResNet-50.
func BenchmarkConv(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, isa := range Available() {
		team := NewTeamFor(isa, 1)
		for _, s := range []struct {
			Conv
			batch int
		}{
			{Conv{3, 16, 28, 28, 3, 1, 1}, 32},
			{Conv{16, 16, 28, 28, 3, 1, 1}, 32},
			{Conv{16, 32, 28, 28, 3, 2, 1}, 32},
			{Conv{32, 32, 14, 14, 3, 1, 1}, 32},
			{Conv{64, 64, 7, 7, 3, 1, 1}, 32},
			{Conv{512, 512, 4, 4, 3, 1, 1}, 32},
			{Conv{64, 256, 56, 56, 1, 1, 0}, 4},
		} {
			c := NewConvolution(team, s.Conv)
			x, w := random(r, s.batch*s.InC*s.H*s.W), random(r, s.OutC*s.InC*s.Kernel*s.Kernel)
			y := make([]float32, s.batch*s.OutC*s.OutH()*s.OutW())
			name := fmt.Sprintf("%s/%d-%dc%ds%d/%d/", isa, s.InC, s.OutC, s.Kernel, s.Stride, s.H)
			for _, pass := range []struct {
				name string
				run  func()
			}{
				{"forward", func() { c.Forward(s.batch, x, w, y) }},
				{"data", func() { c.BackwardData(s.batch, y, w, x) }},
				{"weights", func() { c.BackwardWeights(s.batch, x, y, w) }},
			} {
				b.Run(name+pass.name, func(b *testing.B) {
					measure(b, s.flops(s.batch), pass.run)
				})
			}
		}
		team.Close()
	}
}

// flops is the work of one pass (forward, or either backward) over a batch:
// two operations for each product.
func (c Conv) flops(batch int) float64 {
	return 2 * float64(batch) * float64(c.OutC*c.OutH()*c.OutW()) * float64(c.InC*c.Kernel*c.Kernel)
}
