package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// Probe is a linear classifier that is trained beside the encoder (package
// model/probe): C classes of features of length F. nil is none.
type Probe struct {
	Classes, Features int
	Params, Momentum  []float32 // [C·F + C]: weights, row by row, then biases
}

// Vectors are the parameters and their momentum; none of nil.
func (p *Probe) Vectors() [][]float32 {
	if p == nil {
		return nil
	}
	return [][]float32{p.Params, p.Momentum}
}

// Names of its tensors in the file.
const (
	probePrefix   = "probe."
	probeMomentum = "optimizer.probe."
	weight, bias  = "weight", "bias"
)

func (p *Probe) check() error {
	if p == nil {
		return nil
	}
	size := p.Classes*p.Features + p.Classes
	if p.Classes < 1 || p.Features < 1 || len(p.Params) != size || len(p.Momentum) != size {
		return fmt.Errorf("probe of %d classes of %d features: %d parameters, %d of momentum", p.Classes, p.Features, len(p.Params), len(p.Momentum))
	}
	return nil
}

// pieces adds its tensors to those of a file.
func (p *Probe) pieces(add func(name, dtype string, shape []int, data []byte)) {
	if p == nil {
		return
	}
	weights := p.Classes * p.Features
	for i, prefix := range []string{probePrefix, probeMomentum} {
		flat := p.Vectors()[i]
		add(prefix+weight, "F32", []int{p.Classes, p.Features}, littleEndian(flat[:weights]))
		add(prefix+bias, "F32", []int{p.Classes}, littleEndian(flat[weights:]))
	}
}

// probeOf makes out the probe of a file, nil when it has none. All of its tensors must
// be there, one after the other as pieces adds them, and fit.
func probeOf(h *header) (*Probe, error) {
	var tensors []entry
	for _, e := range h.tensors {
		if strings.HasPrefix(e.name, probePrefix) || strings.HasPrefix(e.name, probeMomentum) {
			tensors = append(tensors, e)
		}
	}
	if len(tensors) == 0 {
		return nil, nil
	}
	p := &Probe{}
	if shape := tensors[0].shape; len(shape) == 2 {
		p.Classes, p.Features = shape[0], shape[1]
	}
	if p.Classes < 1 || p.Features < 1 {
		return nil, invalid("%s has shape %v, not [C, F]", tensors[0].name, tensors[0].shape)
	}
	for i, want := range []struct {
		name  string
		shape []int
	}{
		{probePrefix + weight, []int{p.Classes, p.Features}}, {probePrefix + bias, []int{p.Classes}},
		{probeMomentum + weight, []int{p.Classes, p.Features}}, {probeMomentum + bias, []int{p.Classes}},
	} {
		switch {
		case i >= len(tensors):
			return nil, invalid("tensor %q is missing", want.name)
		case tensors[i].name != want.name:
			return nil, invalid("tensor %q stands where %q should", tensors[i].name, want.name)
		case !slices.Equal(tensors[i].shape, want.shape):
			return nil, invalid("%s has shape %v, not %v", want.name, tensors[i].shape, want.shape)
		}
	}
	if len(tensors) > 4 {
		return nil, invalid("tensor %q does not belong into a checkpoint", tensors[4].name)
	}
	return p, nil
}
