package engine

import (
	"errors"
	"fmt"

	"mochi/model/network"
)

// What follows is for engines: checks of what they are asked, in one wording.

// Validate reports what no engine compiles.
func (s Spec) Validate() error {
	switch {
	case s.Batch < 1:
		return fmt.Errorf("batch: %d; at least 1 sample is needed", s.Batch)
	case s.Encoder != Query && s.Encoder != Key:
		return fmt.Errorf("there is no encoder %d", s.Encoder)
	case s.Mode < Train || s.Mode > Eval:
		return fmt.Errorf("there is no mode %d", s.Mode)
	}
	return nil
}

// MaxPoolKernel is the largest window of a max pooling, in pixels a side, whose
// places fit into a byte: kernels that keep them so do larger ones not at all.
const MaxPoolKernel = 15

// CheckPooling reports a max pooling with a larger window than MaxPoolKernel, as
// ErrUnsupported.
func CheckPooling(net *network.Network) error {
	for _, n := range net.Nodes {
		if n.Op == network.OpMaxPool && n.Kernel > MaxPoolKernel {
			return fmt.Errorf("max pooling of %d×%d pixels: %w: at most %d×%d", n.Kernel, n.Kernel, ErrUnsupported, MaxPoolKernel, MaxPoolKernel)
		}
	}
	return nil
}

// Len is the length of a vector of net's State; ok is false when there is no
// such vector.
func (v Vector) Len(net *network.Network) (n int, ok bool) {
	switch v {
	case QueryParams, KeyParams, Momentum:
		return net.NumParams(), true
	case QueryBuffers, KeyBuffers:
		return net.NumBuffers(), true
	}
	return 0, false
}

// MustSet panics where State.Set must: no such vector, or another length.
func MustSet(engine string, net *network.Network, v Vector, values []float32) {
	n, ok := v.Len(net)
	if !ok {
		panic(fmt.Sprintf("engine %s: set: there is no vector %d", engine, v))
	}
	if len(values) != n {
		panic(fmt.Sprintf("engine %s: set vector %d: %d values, %s has %d", engine, v, len(values), net.Arch, n))
	}
}

// Calls checks the calls of one Program, of Groups groups of Spec.Batch
// samples, and words their faults. Where Program says that a method has no
// error, a fault panics.
type Calls struct {
	Engine string // its name
	Net    *network.Network
	Spec   Spec
	Groups int
}

// Fail is err of an action, with the program that failed.
func (c *Calls) Fail(action string, err error) error {
	return fmt.Errorf("engine %s: %s of %s, batch %d: %w", c.Engine, action, c.Net.Arch, c.samples(), err)
}

// Images is the length of a Forward's images.
func (c *Calls) Images() int {
	return c.samples() * c.Net.Channels * c.Net.ImageSize * c.Net.ImageSize
}

// Embeddings is the length of a Forward's result.
func (c *Calls) Embeddings() int { return c.samples() * c.Net.Dim }

func (c *Calls) samples() int { return c.Groups * c.Spec.Batch }

// Stage checks a Stager's Stage.
func (c *Calls) Stage(closed bool, images []float32) error {
	return c.check("stage", closed, length{"images", len(images), c.Images()})
}

// Forward checks a Program's Forward.
func (c *Calls) Forward(closed bool, images, dst []float32) error {
	return c.check("forward", closed, length{"images", len(images), c.Images()}, length{"destination", len(dst), c.Embeddings()})
}

// Features checks a Program's Features.
func (c *Calls) Features(closed bool, dst []float32) {
	c.must("features", closed, length{"destination", len(dst), c.samples() * c.Net.FeatureDim})
}

// Statistics checks a Program's Statistics.
func (c *Calls) Statistics(closed bool, dst []float32) {
	if c.Spec.Mode == Eval {
		panic(fmt.Sprintf("engine %s: statistics: a program in mode Eval has none", c.Engine))
	}
	c.must("statistics", closed, length{"destination", len(dst), c.Groups * c.Net.NumBuffers()})
}

// Backward checks a Program's Backward. pending says that a Forward has kept
// its activations.
func (c *Calls) Backward(closed, pending bool, dEmbeddings, grads []float32) error {
	if c.Spec.Mode != Train {
		return c.Fail("backward", errors.New("the program was not compiled in mode Train"))
	}
	if err := c.check("backward", closed, length{"gradients of embeddings", len(dEmbeddings), c.Embeddings()},
		length{"destination", len(grads), c.Groups * c.Net.NumParams()}); err != nil {
		return err
	}
	if !pending {
		return c.Fail("backward", errors.New("it must follow a Forward, once"))
	}
	return nil
}

// length is an argument's length beside the right one.
type length struct {
	name      string
	got, want int
}

func (c *Calls) check(action string, closed bool, lengths ...length) error {
	if closed {
		return c.Fail(action, errors.New("the program is closed"))
	}
	for _, l := range lengths {
		if l.got != l.want {
			return c.Fail(action, fmt.Errorf("%s: %d values, want %d", l.name, l.got, l.want))
		}
	}
	return nil
}

func (c *Calls) must(action string, closed bool, l length) {
	if err := c.check(action, closed, l); err != nil {
		panic(err)
	}
}
