package gorgonia

import (
	"errors"
	"fmt"

	"mochi/model/engine"
	"mochi/model/network"
)

// program implements engine.Program on a compiled graph.
type program struct {
	net    *network.Network
	spec   engine.Spec
	graph  *compiled
	closed bool
}

func (p *program) Spec() engine.Spec { return p.spec }

func (p *program) Forward(images, dst []float32) error {
	c := p.graph
	if err := p.check("forward",
		length{"images", len(images), len(c.images)},
		length{"destination", len(dst), len(c.embeddings)}); err != nil {
		return err
	}
	copy(c.images, images)
	c.machine.Reset()
	c.paused = false
	// A pause arrives wrapped in the machine's own error types, which do not
	// unwrap; the flag says what it was.
	if err := c.machine.RunAll(); err != nil && !c.paused {
		return p.fail("forward", err)
	}
	copy(dst, c.embeddings)
	return nil
}

func (p *program) Features(dst []float32) {
	p.must("features", length{"destination", len(dst), len(p.graph.features)})
	copy(dst, p.graph.features)
}

func (p *program) Statistics(dst []float32) {
	if p.spec.Mode == engine.Eval {
		panic("engine gorgonia: statistics: a program in mode Eval has none")
	}
	p.must("statistics", length{"destination", len(dst), len(p.graph.statistics)})
	copy(dst, p.graph.statistics)
}

// Backward lets the tape machine go on in a goroutine of its own and passes
// gradients on while it runs: ready fires parameter by parameter, in the order
// in which the machine gets to them, the output's first.
func (p *program) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	c := p.graph
	if p.spec.Mode != engine.Train {
		return p.fail("backward", errors.New("the program was not compiled in mode Train"))
	}
	if err := p.check("backward",
		length{"gradients of embeddings", len(dEmbeddings), len(c.gradient)},
		length{"destination", len(grads), len(c.grads)}); err != nil {
		return err
	}
	if !c.paused {
		return p.fail("backward", errors.New("it must follow a Forward, once"))
	}
	copy(c.gradient, dEmbeddings)
	var failure error
	go func() {
		failure = c.machine.RunAll()
		c.ready <- finished
	}()
	for param := <-c.ready; param != finished; param = <-c.ready {
		t := p.net.Params[param]
		copy(grads[t.Offset:t.Offset+t.Size], c.grads[t.Offset:t.Offset+t.Size])
		if ready != nil {
			ready(param)
		}
	}
	if failure != nil {
		return p.fail("backward", failure)
	}
	return nil
}

func (p *program) Close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	return p.graph.machine.Close()
}

// length is an argument's length beside the right one.
type length struct {
	name      string
	got, want int
}

func (p *program) check(action string, lengths ...length) error {
	if p.closed {
		return p.fail(action, errors.New("the program is closed"))
	}
	for _, l := range lengths {
		if l.got != l.want {
			return p.fail(action, fmt.Errorf("%s: %d values, want %d", l.name, l.got, l.want))
		}
	}
	return nil
}

func (p *program) must(action string, lengths ...length) {
	if err := p.check(action, lengths...); err != nil {
		panic(err)
	}
}

func (p *program) fail(action string, err error) error {
	return fmt.Errorf("engine gorgonia: %s of %s, batch %d: %w", action, p.net.Arch, p.spec.Batch, err)
}
