package enginetest

import (
	"errors"

	"mochi/model/engine"
)

// Together is a program of several BatchNorm groups (engine.Grouped) made of
// programs of one group each, for tests of whoever runs such programs. Backward
// computes the groups in turn: a parameter is ready when the last one's is.
type Together struct{ Groups []engine.Program }

// Row is group j's part of a tensor [groups, …].
func (p Together) Row(x []float32, j int) []float32 {
	n := len(x) / len(p.Groups)
	return x[j*n : (j+1)*n]
}

// Spec is that of one group.
func (p Together) Spec() engine.Spec { return p.Groups[0].Spec() }

// Forward implements engine.Program.
func (p Together) Forward(images, dst []float32) (err error) {
	for j, one := range p.Groups {
		err = errors.Join(err, one.Forward(p.Row(images, j), p.Row(dst, j)))
	}
	return err
}

// Features implements engine.Program.
func (p Together) Features(dst []float32) {
	for j, one := range p.Groups {
		one.Features(p.Row(dst, j))
	}
}

// Statistics implements engine.Program.
func (p Together) Statistics(dst []float32) {
	for j, one := range p.Groups {
		one.Statistics(p.Row(dst, j))
	}
}

// Backward implements engine.Program.
func (p Together) Backward(d, grads []float32, ready func(param int)) (err error) {
	for j, one := range p.Groups {
		r := ready
		if j < len(p.Groups)-1 {
			r = nil
		}
		err = errors.Join(err, one.Backward(p.Row(d, j), p.Row(grads, j), r))
	}
	return err
}

// Close closes all of them.
func (p Together) Close() (err error) {
	for _, one := range p.Groups {
		err = errors.Join(err, one.Close())
	}
	return err
}
