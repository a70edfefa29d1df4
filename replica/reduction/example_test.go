package reduction_test

import (
	"context"
	"fmt"

	"mochi/model/network"
	"mochi/replica/reduction"
	"mochi/replica/replicatest"
)

// A member that is alone sums the gradients of its two groups.
func Example() {
	net, err := network.Build("resnet8", network.Options{ImageSize: 28, Channels: 1, Dim: 32, Head: network.HeadLinear})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := reduction.New(net, reduction.Config{Exact: true, Groups: 2, AtOnce: 1})
	ctx, ring := context.Background(), replicatest.Ring{}

	for group, terms := range r.Begin(2) {
		terms.Grads[0] = 0.5 + float32(group)
	}
	r.Start(ctx, ring, 1, true)
	for param := range net.Params { // as the last backward does
		r.Final(param)
	}
	r.Complete()
	if err := r.Wait(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Gradients()[0])
	// Output: 2
}
