//go:build simd

package augment

import (
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/replica/augment/simd"
)

// eachLevel runs a test for each set of instructions that this processor has.
func eachLevel(t *testing.T, test func(*testing.T, simd.Level)) {
	for level := simd.Level(0); level <= simd.BestLevel(); level++ {
		t.Run([]string{"plain", "AVX2", "AVX-512", "VNNI", "VBMI"}[level], func(t *testing.T) { test(t, level) })
	}
}

// compareFast compares one view with that of plain Go, bit by bit.
func compareFast(t *testing.T, w *Worker, img *Image, p Params, got, want []float32) {
	t.Helper()
	w.applyFast(img, p, got)
	w.applyPlain(img, p, want)
	if !slices.Equal(got, want) {
		differ := 0
		for i := range got {
			if got[i] != want[i] {
				differ++
			}
		}
		t.Fatalf("%d of %d values differ at %d pixels a side from %d×%d: %+v", differ, len(got), w.recipe.size, img.W, img.H, p)
	}
}

// Views of any shape and parameters, what the recipes draw and what they do
// not: single parts, wide blurs.
func TestFastEqualsPlain(t *testing.T) {
	eachLevel(t, func(t *testing.T, level simd.Level) {
		rng := rand.New(rand.NewPCG(3, 4))
		for i := range 120 {
			name := []string{MoCoV2, CIFAR, None}[i%3]
			size := 1 + rng.IntN(70)
			if i%40 == 0 {
				size = 224
			}
			r, err := New(name, size)
			if err != nil {
				t.Fatal(err)
			}
			w := NewWorker(r)
			w.fast.level = level
			got, want := make([]float32, r.ViewLen()), make([]float32, r.ViewLen())
			img := noise(1+rng.IntN(300), 1+rng.IntN(300))
			if i%5 == 0 {
				img = noise(size, size)
			}
			for range 4 {
				p := r.Draw(img.W, img.H, rng)
				compareFast(t, w, img, p, got, want)
				p.BlurRadius = float32(rng.Float64() * 9)
				p.Jitter, p.Order = true, [4]uint8{9, uint8(rng.IntN(4)), 9, 9}
				p.Factor = [3]float32{float32(3 * rng.Float64()), float32(3 * rng.Float64()), float32(3 * rng.Float64())}
				p.HueShift = rng.Float64() - 0.5
				compareFast(t, w, img, p, got, want)
			}
		}
	})
}

// All 2^24 colours, through each part of the jitter, and every fifth
// shift of the hue.
func TestFastColoursEqualPlain(t *testing.T) {
	const side = 512
	r, err := New(CIFAR, side)
	if err != nil {
		t.Fatal(err)
	}
	img := NewImage(side, side)
	got, want := make([]float32, r.ViewLen()), make([]float32, r.ViewLen())
	p := Params{Crop: Rect{Height: side, Width: side}, ResizeW: side, ResizeH: side, Jitter: true}
	eachLevel(t, func(t *testing.T, level simd.Level) {
		w := NewWorker(r)
		w.fast.level = level
		blues := 4 // of 256 at a time
		for first := 0; first < 256; first += blues {
			for i := range side * side {
				px := img.Pix[3*i : 3*i+3]
				px[0], px[1], px[2] = uint8(i), uint8(i>>8), uint8(first+i>>16)
			}
			p.Order, p.HueShift = [4]uint8{Hue, 9, 9, 9}, (float64(first)+0.5)/255
			compareFast(t, w, img, p, got, want)
			p.Order[0], p.Factor[Saturation] = Saturation, 0.6+float32(first)/320
			compareFast(t, w, img, p, got, want)
		}
		for i := range side * side {
			px := img.Pix[3*i : 3*i+3]
			px[0], px[1], px[2] = uint8(i&63*4), uint8(i>>6&63*4), uint8(i>>12*4)
		}
		p.Order[0] = Hue
		for shift := 0; shift < 256; shift += 5 {
			p.HueShift = float64(shift) / 255
			compareFast(t, w, img, p, got, want)
		}
	})
}

// Views by every level equal torchvision's, as those of plain Go do.
func TestFastGolden(t *testing.T) {
	g := readGolden(t)
	eachLevel(t, func(t *testing.T, level simd.Level) {
		for _, v := range g.Views {
			r, err := New(MoCoV2, v.Size)
			if err != nil {
				t.Fatal(err)
			}
			w := NewWorker(r)
			w.fast.level = level
			compareFast(t, w, g.image(v.Image), v.params(), make([]float32, r.ViewLen()), make([]float32, r.ViewLen()))
		}
	})
}

func TestFastAllocatesNothing(t *testing.T) {
	r, err := New(MoCoV2, 64)
	if err != nil {
		t.Fatal(err)
	}
	w, img, dst := NewWorker(r), noise(200, 150), make([]float32, r.ViewLen())
	p := r.Draw(img.W, img.H, Seed(1, 2, 3, 0))
	p.BlurRadius = 1.5
	if n := testing.AllocsPerRun(10, func() { w.applyFast(img, p, dst) }); n > 0 {
		t.Errorf("a view allocates %v times", n)
	}
}
