package augment

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestNewNamesTheFault(t *testing.T) {
	if _, err := New("simclr", 32); err == nil || !strings.Contains(err.Error(), "simclr") || !strings.Contains(err.Error(), "moco-v2, cifar, none") {
		t.Errorf("unknown recipe: %v", err)
	}
	if _, err := New(CIFAR, 0); err == nil || !strings.Contains(err.Error(), "image-size 0") {
		t.Errorf("size 0: %v", err)
	}
}

// Every draw fits its image, whatever the shape, and the view can be made.
func TestDrawFitsTheImage(t *testing.T) {
	for _, name := range []string{MoCoV2, CIFAR, None} {
		r, err := New(name, 6)
		if err != nil {
			t.Fatal(err)
		}
		w := NewWorker(r)
		dst := make([]float32, r.ViewLen())
		for _, shape := range [][2]int{{1, 1}, {1, 500}, {500, 1}, {2, 3}, {6, 6}, {28, 28}, {300, 240}, {7, 90}} {
			img := NewImage(shape[0], shape[1])
			for i := range 200 {
				p := r.Draw(img.W, img.H, Seed(1, 0, i, 0))
				w.Apply(img, p, dst) // panics when the crop leaves the image
				if p.WindowX+6 > p.ResizeW || p.WindowY+6 > p.ResizeH {
					t.Fatalf("%s of %v: window leaves the resized crop: %+v", name, shape, p)
				}
			}
		}
	}
}

// RandomResizedCrop's fallback, by torchvision's rule.
func TestCentralCrop(t *testing.T) {
	for _, c := range []struct {
		w, h int
		want Rect
	}{
		{100, 10, Rect{Top: 0, Left: 43, Height: 10, Width: 13}},
		{10, 100, Rect{Top: 43, Left: 0, Height: 13, Width: 10}},
		{30, 30, Rect{Height: 30, Width: 30}},
		{1, 9, Rect{Top: 4, Left: 0, Height: 1, Width: 1}},
	} {
		if got := centralCrop(c.w, c.h); got != c.want {
			t.Errorf("%d×%d: got %+v, want %+v", c.w, c.h, got, c.want)
		}
	}
}

// What is drawn has the published distribution: 20,000 views, bounds at more
// than five standard deviations; the seed is fixed.
func TestDrawDistribution(t *testing.T) {
	const n = 20000
	for _, c := range []struct {
		name     string
		minScale float64
		blur     float64
	}{{MoCoV2, 0.2, 0.5}, {CIFAR, 0.08, 0}} {
		r, err := New(c.name, 32)
		if err != nil {
			t.Fatal(err)
		}
		var jitters, greys, flips, blurs, areas, bright, hues, left float64
		firsts := make([]int, 4)
		for i := range n {
			p := r.Draw(400, 400, Seed(7, 3, i, QueryView))
			area := float64(p.Crop.Width*p.Crop.Height) / (400 * 400)
			if area < c.minScale-0.01 || area > 1 {
				t.Fatalf("%s: crop keeps %.3f of the area", c.name, area)
			}
			areas += area
			left += float64(p.Crop.Left) / math.Max(1, float64(400-p.Crop.Width))
			if ratio := float64(p.Crop.Width) / float64(p.Crop.Height); ratio < 0.74 || ratio > 1.35 {
				t.Fatalf("%s: aspect ratio %.3f", c.name, ratio)
			}
			if p.Jitter {
				jitters++
				firsts[p.Order[0]]++
				order := slices.Sorted(slices.Values(p.Order[:]))
				if !slices.Equal(order, []uint8{0, 1, 2, 3}) {
					t.Fatalf("%s: order %v is no permutation", c.name, p.Order)
				}
				for _, f := range p.Factor {
					if f < 0.6 || f > 1.4 {
						t.Fatalf("%s: factor %v", c.name, f)
					}
				}
				if math.Abs(p.HueShift) > 0.1 {
					t.Fatalf("%s: hue shift %v", c.name, p.HueShift)
				}
				bright += float64(p.Factor[Brightness])
				hues += p.HueShift
			}
			if p.Grayscale {
				greys++
			}
			if p.Flip {
				flips++
			}
			if p.BlurRadius > 0 {
				blurs++
				if p.BlurRadius < 0.1 || p.BlurRadius > 2 {
					t.Fatalf("%s: blur radius %v", c.name, p.BlurRadius)
				}
			}
		}
		near := func(what string, got, want, within float64) {
			if math.Abs(got-want) > within {
				t.Errorf("%s: %s is %.4f, want %.4f ± %.4f", c.name, what, got, want, within)
			}
		}
		near("share of jittered views", jitters/n, 0.8, 0.015)
		near("share of grey views", greys/n, 0.2, 0.015)
		near("share of flipped views", flips/n, 0.5, 0.018)
		near("share of blurred views", blurs/n, c.blur, 0.018)
		near("mean brightness factor", bright/jitters, 1, 0.01)
		near("mean hue shift", hues/jitters, 0, 0.0025)
		near("mean place of the crop", left/n, 0.5, 0.03)
		for part, count := range firsts {
			near("share of part "+string(rune('0'+part))+" coming first", float64(count)/jitters, 0.25, 0.018)
		}
		// Large crops of extreme ratio do not fit and are drawn again, so the
		// mean area lies below the middle of the scale.
		if mean := areas / n; mean > (1+c.minScale)/2 || mean < (1+c.minScale)/2-0.1 {
			t.Errorf("%s: mean area %.3f", c.name, mean)
		}
	}
}

// A view depends on seed, epoch, sample and view, and on nothing else.
func TestSeed(t *testing.T) {
	base := Seed(1, 2, 3, 0).Uint64()
	if Seed(1, 2, 3, 0).Uint64() != base {
		t.Error("not reproducible")
	}
	for name, other := range map[string]uint64{
		"seed":  Seed(2, 2, 3, 0).Uint64(),
		"epoch": Seed(1, 3, 3, 0).Uint64(),
		"index": Seed(1, 2, 4, 0).Uint64(),
		"view":  Seed(1, 2, 3, 1).Uint64(),
		"swap":  Seed(1, 3, 2, 0).Uint64(),
	} {
		if other == base {
			t.Errorf("%s does not matter", name)
		}
	}
	// Pinned: a changed generator would silently change every job's views.
	if base != 0x96e81bb89ac7d3df {
		t.Errorf("first value of Seed(1, 2, 3, 0) is %#x", base)
	}
}

func TestExp(t *testing.T) {
	for x := -0.3; x <= 0.3; x += 0.001 {
		if d := math.Abs(exp(x)/math.Exp(x) - 1); d > 5e-16 {
			t.Fatalf("exp(%v) is off by %v", x, d)
		}
	}
}

// A worker's buffers carry nothing from one view to the next, and its steady
// state allocates nothing.
func TestWorkerIsReusable(t *testing.T) {
	r, err := New(MoCoV2, 20)
	if err != nil {
		t.Fatal(err)
	}
	images := []*Image{noise(31, 50), noise(200, 90), noise(20, 20), noise(5, 7)}
	shared := NewWorker(r)
	got, want := make([]float32, r.ViewLen()), make([]float32, r.ViewLen())
	for i := range 40 {
		img := images[i%len(images)]
		shared.View(img, Seed(1, 0, i, 0), got)
		NewWorker(r).View(img, Seed(1, 0, i, 0), want)
		if !slices.Equal(got, want) {
			t.Fatalf("view %d depends on the views before it", i)
		}
	}
	p := r.Draw(200, 90, Seed(1, 0, 3, 0))
	p.BlurRadius = 2
	if n := testing.AllocsPerRun(10, func() { shared.Apply(images[1], p, got) }); n > 0 {
		t.Errorf("a view allocates %v times", n)
	}
}

func TestApplyRefusesImpossibleParams(t *testing.T) {
	r := Eval(4)
	good := r.Draw(8, 8, nil)
	outside := good
	outside.Crop.Left = 1
	for name, call := range map[string]func(){
		"crop":   func() { NewWorker(r).Apply(NewImage(8, 8), outside, make([]float32, r.ViewLen())) },
		"length": func() { NewWorker(r).Apply(NewImage(8, 8), good, make([]float32, 7)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

// noise is a reproducible image of w×h pixels.
func noise(w, h int) *Image {
	img := NewImage(w, h)
	rng := Seed(uint64(w), h, 0, 0)
	for i := range img.Pix {
		img.Pix[i] = uint8(rng.Uint32())
	}
	return img
}

func BenchmarkView(b *testing.B) {
	for _, c := range []struct {
		name         string
		recipe       string
		w, h, size   int
		twoViewsEach bool
	}{
		{"cifar 32 of 32x32", CIFAR, 32, 32, 32, true},
		{"moco-v2 32 of 28x28", MoCoV2, 28, 28, 32, true},
		{"moco-v2 224 of 300x240", MoCoV2, 300, 240, 224, true},
		{"moco-v2 224 of 500x375", MoCoV2, 500, 375, 224, true},
		{"none 224 of 300x240", None, 300, 240, 224, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, err := New(c.recipe, c.size)
			if err != nil {
				b.Fatal(err)
			}
			w, img, dst := NewWorker(r), noise(c.w, c.h), make([]float32, r.ViewLen())
			i := 0
			for b.Loop() {
				w.View(img, Seed(1, 0, i, 0), dst)
				i++
			}
			perImage := 1.0
			if c.twoViewsEach {
				perImage = 2
			}
			b.ReportMetric(float64(b.N)/perImage/b.Elapsed().Seconds(), "images/s")
		})
	}
}
