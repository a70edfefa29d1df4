package loss_test

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/engine/gorgonia"
	"mochi/model/loss"
)

// One query whose key is closer than both queue entries: the four synthetic
// negatives make its task harder.
func Example() {
	eng, err := gorgonia.New(engine.Config{Threads: 1})
	if err != nil {
		panic(err)
	}
	defer eng.Close()
	cfg := loss.Config{N: 2, S: 2, S2: 2, Temperature: 0.2}
	l, err := loss.New(cfg, 2, 1, 2, eng.Contrast())
	if err != nil {
		panic(err)
	}
	in := loss.Input{
		Queries: loss.Queries{Q: []float32{1, 0}, Samples: []int{42}},
		Pos:     []float32{0.96, 0.28},
		Shards:  loss.Split([]float32{0.6, 0.8, 0.8, -0.6}, nil, 2, 1),
		Scale:   1,
	}
	out := loss.Output{DQ: make([]float32, 2)}
	for _, mix := range []bool{false, true} {
		in.Mix = mix
		if err := l.Compute(in, &out); err != nil {
			panic(err)
		}
		fmt.Printf("mixing %-5v loss %.2f, key outranks real negatives: %.0f\n", mix, out.Loss, out.Proxy)
	}
	// Output:
	// mixing false loss 0.48, key outranks real negatives: 1
	// mixing true  loss 1.45, key outranks real negatives: 1
}
