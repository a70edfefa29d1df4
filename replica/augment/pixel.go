package augment

import "math"

// Pixel is the 8-bit value that a normalised value v of channel c stands for:
// the inverse of a view's normalisation.
func Pixel(v float32, c int) uint8 {
	// ImageNet's, as in NewWorker; the test goes there and back.
	mean := [Channels]float64{0.485, 0.456, 0.406}[c]
	std := [Channels]float64{0.229, 0.224, 0.225}[c]
	return uint8(min(255, max(0, math.Round((float64(v)*std+mean)*255))))
}
