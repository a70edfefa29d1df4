package augment

import "testing"

// Every 8-bit value comes back from a view that leaves it alone.
func TestPixelInvertsTheNormalisation(t *testing.T) {
	img := NewImage(16, 16)
	for i := range img.Pix {
		img.Pix[i] = uint8(i / 3)
	}
	view := make([]float32, Eval(16).ViewLen())
	NewWorker(Eval(16)).View(img, nil, view)
	for c := range Channels {
		for i := range 256 {
			if got := Pixel(view[c*256+i], c); int(got) != i {
				t.Fatalf("channel %d: %d comes back as %d", c, i, got)
			}
		}
	}
}
