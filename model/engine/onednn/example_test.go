//go:build onednn

package onednn

import (
	"fmt"

	"mochi/model/engine"
)

// What is done with an engine is the same for all: see gorgonia's example.
func Example() {
	e, err := New(engine.Config{Precision: engine.BF16, Threads: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	fmt.Println(e.Info().Name, e.Info().Threads)
	// Output: onednn 2
}
