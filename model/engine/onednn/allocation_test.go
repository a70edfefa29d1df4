//go:build onednn && testhooks

package onednn

import (
	"errors"
	"regexp"
	"testing"

	"mochi/model/engine"
	"mochi/model/network"
)

// TestEveryAllocationMayFail makes one allocation after another fail, from the
// start of an engine to a compiled program: each is an error that names size
// and purpose, and what was made before it is freed (the address sanitizer
// looks for leaks: make test-asan).
func TestEveryAllocationMayFail(t *testing.T) {
	defer allocations(-1)
	net, err := network.Build("resnet8", network.Options{Channels: 3, ImageSize: 8, Dim: 4, Head: network.HeadMLP})
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`^engine onednn: .*no memory for .+: \d+ bytes$`)
	for _, precision := range []engine.Precision{engine.FP32, engine.BF16} {
		n := 0
		for ; ; n++ {
			allocations(n)
			err := start(net, precision)
			if err == nil {
				break // there are no more than n
			}
			if !says.MatchString(err.Error()) {
				t.Fatalf("%s: allocation %d fails: %v", precision, n, err)
			}
		}
		if n < 100 {
			t.Errorf("%s: only %d allocations were seen", precision, n)
		}
	}
}

// start makes an engine, a state and a program, runs it, and closes what there is.
func start(net *network.Network, precision engine.Precision) (err error) {
	e, err := New(engine.Config{Precision: precision, Threads: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := e.NewState(net)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p, err := s.Compile(engine.Spec{Batch: 2, Mode: engine.Train})
	if err != nil {
		return err
	}
	embeddings := make([]float32, 2*net.Dim)
	if err := p.Forward(make([]float32, 2*3*8*8), embeddings); err != nil {
		return err
	}
	return p.Backward(embeddings, make([]float32, net.NumParams()), nil)
}
