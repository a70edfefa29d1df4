package cpu_test

import (
	"fmt"

	"mochi/model/engine/cpu"
)

// A 3×3 convolution of a 3×3 image with a filter of ones sums each pixel's
// neighbourhood.
func Example() {
	team := cpu.NewTeam(2)
	defer team.Close()

	conv := cpu.NewConvolution(team, cpu.Conv{InC: 1, OutC: 1, H: 3, W: 3, Kernel: 3, Stride: 1, Pad: 1})
	x := []float32{
		1, 2, 3,
		4, 5, 6,
		7, 8, 9,
	}
	w := []float32{1, 1, 1, 1, 1, 1, 1, 1, 1}
	y := make([]float32, 9)
	conv.Forward(1, x, w, y)
	fmt.Println(y)
	// Output: [12 21 16 27 45 33 24 39 28]
}
