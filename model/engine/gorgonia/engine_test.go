package gorgonia

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"gorgonia.org/tensor"

	"mochi/model/engine"
	"mochi/model/engine/enginetest"
	"mochi/model/network"
)

func TestConformance(t *testing.T) { enginetest.Run(t, New) }

func TestBF16IsRefused(t *testing.T) {
	_, err := New(engine.Config{Precision: engine.BF16})
	if !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), "--precision fp32") {
		t.Errorf("bf16: %v", err)
	}
}

// The tape machine runs ops on a goroutine of its own, where a panic would end
// the process.
func TestPanicInAnOpIsAnError(t *testing.T) {
	o := &op{name: "layer", value: dense(tensor.Shape{1}, make([]float32, 1))}
	o.run = func([][]float32, []float32) error { panic("wrong length") }
	if _, err := o.Do(); err == nil || err.Error() != "layer: wrong length" {
		t.Errorf("got %v", err)
	}
}

// A step leaves no garbage that grows with the activations.
func TestStepsAllocateLittle(t *testing.T) {
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 32, Dim: 16, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	e, st, images := start(t, net, 8, 2)
	defer e.Close()
	p, err := st.Compile(engine.Spec{Batch: 8, Mode: engine.Train})
	if err != nil {
		t.Fatal(err)
	}
	embeddings, grads := make([]float32, 8*net.Dim), make([]float32, net.NumParams())
	step := func() {
		if err := errors.Join(p.Forward(images, embeddings), p.Backward(embeddings, grads, nil)); err != nil {
			t.Fatal(err)
		}
	}
	step() // the kernels' scratch memory grows once
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const steps = 4
	for range steps {
		step()
	}
	runtime.ReadMemStats(&after)
	activations := p.(*program).graph.activations * 4
	if got := int(after.TotalAlloc-before.TotalAlloc) / steps; got > activations/20 {
		t.Errorf("a step allocates %d bytes beside %d of activations", got, activations)
	}
}

// start makes an engine, a state with initial values, and images.
func start(t testing.TB, net *network.Network, batch, threads int) (engine.Engine, engine.State, []float32) {
	t.Helper()
	e, err := New(engine.Config{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	st, err := e.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	params, buffers := net.Init(1)
	st.Set(engine.QueryParams, params)
	st.Set(engine.KeyParams, params)
	st.Set(engine.QueryBuffers, buffers)
	st.Set(engine.KeyBuffers, buffers)
	images := make([]float32, batch*net.Channels*net.ImageSize*net.ImageSize)
	for i := range images {
		images[i] = float32(i%251)/125 - 1
	}
	return e, st, images
}

func Example() {
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 16, Dim: 4, Head: network.HeadLinear})
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := New(engine.Config{Threads: 2})
	if err != nil {
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

	const batch = 2
	query, err := state.Compile(engine.Spec{Encoder: engine.Query, Batch: batch, Mode: engine.Train})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer query.Close()
	images := make([]float32, batch*3*16*16)
	images[0] = 1
	embeddings, grads := make([]float32, batch*net.Dim), make([]float32, net.NumParams())
	if err := query.Forward(images, embeddings); err != nil {
		fmt.Println(err)
		return
	}
	first := true
	err = query.Backward(embeddings, grads, func(param int) {
		if first {
			fmt.Println("first final gradient:", net.Params[param].Name)
		}
		first = false
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: first final gradient: fc.bias
}

// The time of convolutions and products is counted, and no more than passes.
func TestKernelTime(t *testing.T) {
	eng, err := New(engine.Config{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	timer := eng.(interface{ KernelTime() time.Duration })
	if got := timer.KernelTime(); got != 0 {
		t.Errorf("%v before anything ran", got)
	}
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 16, Dim: 8, Head: network.HeadLinear})
	if err != nil {
		t.Fatal(err)
	}
	state, err := eng.NewState(net)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	p, err := state.Compile(engine.Spec{Batch: 4, Mode: engine.Train})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	before := time.Duration(0)
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"forward", func() error { return p.Forward(make([]float32, 4*3*16*16), make([]float32, 4*8)) }},
		{"backward", func() error { return p.Backward(make([]float32, 4*8), make([]float32, net.NumParams()), nil) }},
		{"product", func() error {
			eng.Products().NT(2, 2, 2, make([]float32, 4), make([]float32, 4), make([]float32, 4))
			return nil
		}},
	} {
		start := time.Now()
		if err := part.run(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		now := timer.KernelTime()
		if counted := now - before; counted <= 0 || counted > took {
			t.Errorf("%s: %v counted of %v", part.name, counted, took)
		}
		before = now
	}
}
