//go:build gpu

package cuda

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/network"
)

func Example() {
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 16, Dim: 4, Head: network.HeadLinear})
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := New(engine.Config{Precision: engine.BF16, Device: 0})
	if err != nil { // engine.ErrUnsupported where there is no GPU
		fmt.Println(err)
		return
	}
	defer e.Close()
	state, err := e.NewState(net)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer state.Close()
	params, _ := net.Init(1)
	state.Set(engine.QueryParams, params)
	key, err := state.Compile(engine.Spec{Batch: 2, Mode: engine.Forward})
	if err != nil {
		fmt.Println(err)
		return
	}
	embeddings := make([]float32, 2*net.Dim)
	if err := key.Forward(make([]float32, 2*3*16*16), embeddings); err != nil {
		fmt.Println(err)
	}
	fmt.Println(e.Info().Name, len(embeddings))
	// Output: cuda 8
}
