package gorgonia

import "mochi/model/engine"

// program implements engine.Program on a compiled graph.
type program struct {
	calls  engine.Calls
	graph  *compiled
	closed bool
}

func (p *program) Spec() engine.Spec { return p.calls.Spec }

func (p *program) Forward(images, dst []float32) error {
	c := p.graph
	if err := p.calls.Forward(p.closed, images, dst); err != nil {
		return err
	}
	copy(c.images, images)
	c.machine.Reset()
	c.paused = false
	// A pause arrives wrapped in the machine's own error types, which do not
	// unwrap; the flag says what it was.
	if err := c.machine.RunAll(); err != nil && !c.paused {
		return p.calls.Fail("forward", err)
	}
	copy(dst, c.embeddings)
	return nil
}

func (p *program) Features(dst []float32) {
	p.calls.Features(p.closed, dst)
	copy(dst, p.graph.features)
}

func (p *program) Statistics(dst []float32) {
	p.calls.Statistics(p.closed, dst)
	copy(dst, p.graph.statistics)
}

// Backward lets the tape machine go on in a goroutine of its own and passes
// gradients on while it runs: ready fires parameter by parameter, in the order
// in which the machine gets to them, the output's first.
func (p *program) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	c := p.graph
	if err := p.calls.Backward(p.closed, c.paused, dEmbeddings, grads); err != nil {
		return err
	}
	copy(c.gradient, dEmbeddings)
	var failure error
	go func() {
		failure = c.machine.RunAll()
		c.ready <- finished
	}()
	for param := <-c.ready; param != finished; param = <-c.ready {
		t := p.calls.Net.Params[param]
		copy(grads[t.Offset:t.Offset+t.Size], c.grads[t.Offset:t.Offset+t.Size])
		if ready != nil {
			ready(param)
		}
	}
	if failure != nil {
		return p.calls.Fail("backward", failure)
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
