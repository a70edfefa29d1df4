package model_test

import (
	"errors"
	"fmt"
	"math"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/engine/enginetest"
	"mochi/model/network"
)

// fakeEngine encodes by one matrix: embedding = W·image / ‖W·image‖. Its only
// batch statistic is the mean pixel. It computes in float64.
type fakeEngine struct {
	failCompile engine.Mode // −1 = never
	state       *fakeState
	open        int // states and programs not closed

	together    bool        // several groups in one program
	unsupported engine.Mode // of which it cannot have them; −1 = none
}

func (e *fakeEngine) Info() engine.Info         { return engine.Info{Name: "fake", Threads: 1} }
func (e *fakeEngine) Products() engine.Products { return fakeProducts{} }
func (e *fakeEngine) Contrast() engine.Contrast { return cpu.Contrast{} }
func (e *fakeEngine) Close() error              { return nil }
func (e *fakeEngine) NewState(net *network.Network) (engine.State, error) {
	e.state = &fakeState{e: e, net: net, vectors: map[engine.Vector][]float32{}}
	for _, v := range engine.Vectors {
		n := net.NumParams()
		if v == engine.QueryBuffers || v == engine.KeyBuffers {
			n = net.NumBuffers()
		}
		e.state.vectors[v] = make([]float32, n)
	}
	e.open++
	if e.together {
		return fakeGrouped{e.state}, nil
	}
	return e.state, nil
}

// fakeGrouped runs several groups in one program: those of one group each, and
// ready when the last has all gradients.
type fakeGrouped struct{ *fakeState }

func (s fakeGrouped) CompileGroups(spec engine.Spec, n int) (engine.Program, error) {
	if spec.Mode == s.e.unsupported {
		return nil, fmt.Errorf("%d groups: %w", n, engine.ErrUnsupported)
	}
	p := &enginetest.Together{}
	for range n {
		one, err := s.Compile(spec)
		if err != nil {
			return nil, err
		}
		p.Groups = append(p.Groups, one)
	}
	return p, nil
}

type fakeState struct {
	e       *fakeEngine
	net     *network.Network
	vectors map[engine.Vector][]float32
	updates []engine.Update
}

func (s *fakeState) Network() *network.Network             { return s.net }
func (s *fakeState) Host(v engine.Vector) []float32        { return s.vectors[v] }
func (s *fakeState) Set(v engine.Vector, values []float32) { copy(s.vectors[v], values) }
func (s *fakeState) Update(u engine.Update) error          { s.updates = append(s.updates, u); return nil }
func (s *fakeState) Close() error                          { s.e.open--; return nil }
func (s *fakeState) Compile(spec engine.Spec) (engine.Program, error) {
	if spec.Mode == s.e.failCompile {
		return nil, errors.New("no such mode")
	}
	s.e.open++
	return &fakeProgram{s: s, spec: spec}, nil
}

type fakeProgram struct {
	s      *fakeState
	spec   engine.Spec
	images []float32
}

func (p *fakeProgram) Spec() engine.Spec  { return p.spec }
func (p *fakeProgram) Close() error       { p.s.e.open--; return nil }
func (p *fakeProgram) Features([]float32) { panic("not used by package model") }
func (p *fakeProgram) weights() []float32 {
	if p.spec.Encoder == engine.Key {
		return p.s.vectors[engine.KeyParams]
	}
	return p.s.vectors[engine.QueryParams]
}

// row is W·image of sample i, and its norm.
func (p *fakeProgram) row(i int) (y []float64, norm float64) {
	pixels := len(p.images) / p.spec.Batch
	y = make([]float64, p.s.net.Dim)
	w := p.weights()
	for o := range y {
		for x := range pixels {
			y[o] += float64(w[o*pixels+x]) * float64(p.images[i*pixels+x])
		}
		norm += y[o] * y[o]
	}
	return y, math.Sqrt(norm)
}

func (p *fakeProgram) Forward(images, dst []float32) error {
	p.images = images
	for i := range p.spec.Batch {
		y, norm := p.row(i)
		for o := range y {
			dst[i*len(y)+o] = float32(y[o] / norm)
		}
	}
	return nil
}

func (p *fakeProgram) Statistics(dst []float32) {
	dst[0] = 0
	for _, x := range p.images {
		dst[0] += x / float32(len(p.images))
	}
}

func (p *fakeProgram) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	pixels := len(p.images) / p.spec.Batch
	clear(grads)
	for i := range p.spec.Batch {
		y, norm := p.row(i)
		d := dEmbeddings[i*len(y) : (i+1)*len(y)]
		var along float64
		for o := range y {
			along += float64(d[o]) * y[o] / norm
		}
		for o := range y {
			g := (float64(d[o]) - along*y[o]/norm) / norm
			for x := range pixels {
				grads[o*pixels+x] += float32(g * float64(p.images[i*pixels+x]))
			}
		}
	}
	if ready != nil {
		ready(0)
	}
	return nil
}

type fakeProducts struct{}

func (fakeProducts) NT(m, n, k int, a, b, c []float32) {
	for i := range m {
		for j := range n {
			var s float64
			for x := range k {
				s += float64(a[i*k+x]) * float64(b[j*k+x])
			}
			c[i*n+j] = float32(s)
		}
	}
}

func (fakeProducts) NN(m, n, k int, a, b, c []float32) {
	for i := range m {
		for j := range n {
			var s float64
			for x := range k {
				s += float64(a[i*k+x]) * float64(b[x*n+j])
			}
			c[i*n+j] = float32(s)
		}
	}
}
