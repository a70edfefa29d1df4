package augment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

// golden is testdata/golden.json, made by tools/augment-golden with
// torchvision and PIL.
type golden struct {
	Images map[string]struct {
		W, H int
		Pix  []byte
	}
	Views   []goldenView
	Centres []goldenPixels
	Tensor  struct {
		Image  string
		Size   int
		Values []byte
	}
	Palette struct{ Hue, Saturation, Gray string }
}

type goldenPixels struct {
	Image  string
	Size   int
	Pix    []byte // small views
	SHA256 string // large ones
}

type goldenView struct {
	goldenPixels
	Name   string
	Crop   [4]int // top, left, height, width
	Order  []uint8
	Factor [3]float32
	Hue    float64
	Gray   bool
	Sigma  float32
	Flip   bool
}

func readGolden(t *testing.T) golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g golden) image(name string) *Image {
	i := g.Images[name]
	return &Image{W: i.W, H: i.H, Pix: i.Pix}
}

func (v goldenView) params() Params {
	p := Params{
		Crop:    Rect{Top: v.Crop[0], Left: v.Crop[1], Height: v.Crop[2], Width: v.Crop[3]},
		ResizeW: v.Size, ResizeH: v.Size,
		Jitter: len(v.Order) > 0, Order: [4]uint8{9, 9, 9, 9}, Factor: v.Factor, HueShift: v.Hue,
		Grayscale: v.Gray, BlurRadius: v.Sigma, Flip: v.Flip,
	}
	copy(p.Order[:], v.Order)
	return p
}

// Views equal torchvision's on PIL images, bit by bit.
func TestViewsEqualTorchvision(t *testing.T) {
	g := readGolden(t)
	for i, v := range g.Views {
		t.Run(fmt.Sprintf("%02d %s", i, v.Name), func(t *testing.T) {
			r, err := New(MoCoV2, v.Size)
			if err != nil {
				t.Fatal(err)
			}
			pix := NewWorker(r).pixels(g.image(v.Image), v.params())
			if v.Flip {
				pix = flipped(pix, v.Size)
			}
			v.compare(t, pix)
		})
	}
}

// Resize of the shorter side and centre crop equal torchvision's.
func TestEvalEqualsTorchvision(t *testing.T) {
	g := readGolden(t)
	for _, v := range g.Centres {
		t.Run(fmt.Sprintf("%s at %d", v.Image, v.Size), func(t *testing.T) {
			img := g.image(v.Image)
			r := Eval(v.Size)
			v.compare(t, NewWorker(r).pixels(img, r.Draw(img.W, img.H, nil)))
		})
	}
}

func (v goldenPixels) compare(t *testing.T, got []uint8) {
	t.Helper()
	if v.SHA256 != "" {
		if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != v.SHA256 {
			t.Error("pixels differ from torchvision's")
		}
		return
	}
	if len(got) != len(v.Pix) {
		t.Fatalf("got %d values, want %d", len(got), len(v.Pix))
	}
	differ, worst := 0, 0
	for i := range got {
		if d := int(got[i]) - int(v.Pix[i]); d != 0 {
			differ++
			worst = max(worst, d, -d)
		}
	}
	if differ > 0 {
		t.Errorf("%d of %d values differ from torchvision's, by up to %d", differ, len(got), worst)
	}
}

// The conversions that cost PIL's rounding, over 140,608 colours.
func TestColoursEqualPIL(t *testing.T) {
	want := readGolden(t).Palette
	check := func(name, sum string, op func([]uint8)) {
		var pix []uint8
		for r := 0; r < 256; r += 5 {
			for g := 0; g < 256; g += 5 {
				for b := 0; b < 256; b += 5 {
					pix = append(pix, uint8(r), uint8(g), uint8(b))
				}
			}
		}
		op(pix)
		if got := sha256.Sum256(pix); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s differs from PIL's", name)
		}
	}
	check("hue", want.Hue, func(pix []uint8) { shiftHue(pix, 0.083) })
	check("saturation", want.Saturation, func(pix []uint8) { saturate(pix, 1.31) })
	check("grayscale", want.Gray, grayscale)
}

// ToTensor and Normalize, and the planar layout.
func TestTensorEqualsTorchvision(t *testing.T) {
	g := readGolden(t)
	r, err := New(CIFAR, g.Tensor.Size)
	if err != nil {
		t.Fatal(err)
	}
	img := g.image(g.Tensor.Image)
	p := Params{Crop: Rect{Height: img.H, Width: img.W}, ResizeW: r.Size(), ResizeH: r.Size()}
	got := make([]float32, r.ViewLen())
	NewWorker(r).Apply(img, p, got)
	for i := range got {
		want := math.Float32frombits(binary.LittleEndian.Uint32(g.Tensor.Values[4*i:]))
		if got[i] != want {
			t.Fatalf("value %d: got %v, want %v", i, got[i], want)
		}
	}
	p.Flip = true
	mirror := make([]float32, r.ViewLen())
	NewWorker(r).Apply(img, p, mirror)
	for i := range got {
		if row := i / r.Size() * r.Size(); mirror[i] != got[2*row+r.Size()-1-i] {
			t.Fatalf("value %d of the flipped view is not its mirror image", i)
		}
	}
}

func flipped(pix []uint8, size int) []uint8 {
	out := make([]uint8, len(pix))
	for y := range size {
		for x := range size {
			copy(out[(y*size+x)*Channels:][:Channels], pix[(y*size+size-1-x)*Channels:])
		}
	}
	return out
}
