package augment

import (
	"math"
	"testing"
)

// CropFlip crops as the recipes do, flips half of the time, and leaves colours
// alone.
func TestCropFlip(t *testing.T) {
	r := CropFlip(32)
	flips, area := 0, 0.0
	const n = 4000
	for i := range n {
		p := r.Draw(64, 48, Seed(1, 0, i, 0))
		if p.Jitter || p.Grayscale || p.BlurRadius != 0 || p.ResizeW != 32 || p.ResizeH != 32 {
			t.Fatalf("%+v", p)
		}
		if share := float64(p.Crop.Width*p.Crop.Height) / (64 * 48); share < 0.07 || share > 1 {
			t.Fatalf("a crop of %g of the area", share)
		} else {
			area += share / n
		}
		if p.Flip {
			flips++
		}
	}
	if math.Abs(float64(flips)/n-0.5) > 0.03 || area < 0.38 || area > 0.52 {
		t.Errorf("%d of %d flipped, mean area %g", flips, n, area)
	}
	jittered, err := New(CIFAR, 32)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := r.Draw(64, 48, Seed(1, 0, 5, 0)).Crop, jittered.Draw(64, 48, Seed(1, 0, 5, 0)).Crop; a != b {
		t.Errorf("the crop of recipe cifar is %+v, of CropFlip %+v", b, a)
	}
}
