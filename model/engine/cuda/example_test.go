//go:build gpu

package cuda

import (
	"fmt"

	"mochi/model/engine"
)

// What is done with an engine is the same for all: see gorgonia's example.
func Example() {
	e, err := New(engine.Config{Precision: engine.BF16, Device: 0})
	if err != nil { // engine.ErrUnsupported where there is no GPU
		fmt.Println(err)
		return
	}
	defer e.Close()
	fmt.Println(e.Info().Name)
	// Output: cuda
}
