package sampler_test

import (
	"fmt"

	"mochi/replica/data/sampler"
)

// Three samples in batches of two: the second batch straddles two epochs.
func Example() {
	s := sampler.New(3, 1)
	for cursor := int64(0); cursor < 6; cursor += 2 {
		epochs := []int{}
		for _, ref := range s.Batch(cursor, 2) {
			epochs = append(epochs, ref.Epoch)
		}
		fmt.Println(epochs)
	}
	fmt.Println(s.Steps(2, 2, 0), "steps")
	// Output:
	// [0 0]
	// [0 1]
	// [1 1]
	// 3 steps
}
