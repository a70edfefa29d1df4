package clustertest

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/network"
	"mochi/model/splitmix"
	"mochi/replica/data"
)

// The fake engine computes hashes: an embedding is one of the encoder's
// parameters and the image, a gradient one of those and of what came back from
// the loss, and an update mixes it into a few floats. So the state after a step
// depends on every bit of all that went into every step before, and two runs
// that end alike went alike.

// tiny is a network of 22 parameters and 4 buffers, whatever the job says.
func tiny(job config.Job) (*network.Network, error) {
	b := network.NewBuilder(job.Arch, 3, 1)
	conv := b.Conv("conv1", 0, 2, 1, 1, 0)
	feature := b.GlobalAvgPool(b.BatchNorm("bn1", conv, false))
	return b.Build(feature, b.L2Normalize(b.Linear("fc", feature, job.Dim)))
}

// computer is where an engine's work takes place: it says how long a piece of
// work takes, and whether it ends well.
type computer interface {
	compute(what string) error // blocks for the virtual time of one program's run
	wrong() bool               // the gradient in hand gets a wrong bit
}

// fakeEngine implements engine.Engine.
type fakeEngine struct{ on computer }

func (e *fakeEngine) Info() engine.Info         { return fakeInfo() }
func (e *fakeEngine) Products() engine.Products { return nil }
func (e *fakeEngine) Contrast() engine.Contrast { return cpu.Contrast{} }
func (e *fakeEngine) Close() error              { return nil }

func fakeInfo() engine.Info {
	return engine.Info{Name: "fake", Device: "simulated", Threads: 1, Numerics: "fake"}
}

func (e *fakeEngine) NewState(net *network.Network) (engine.State, error) {
	s := &fakeState{on: e.on, net: net, vectors: map[engine.Vector][]float32{}}
	for _, v := range engine.Vectors {
		n := net.NumParams()
		if v == engine.QueryBuffers || v == engine.KeyBuffers {
			n = net.NumBuffers()
		}
		s.vectors[v] = make([]float32, n)
	}
	return s, nil
}

type fakeState struct {
	on      computer
	net     *network.Network
	vectors map[engine.Vector][]float32
}

func (s *fakeState) Network() *network.Network             { return s.net }
func (s *fakeState) Host(v engine.Vector) []float32        { return s.vectors[v] }
func (s *fakeState) Set(v engine.Vector, values []float32) { copy(s.vectors[v], values) }
func (s *fakeState) Close() error                          { return nil }

func (s *fakeState) Compile(spec engine.Spec) (engine.Program, error) {
	return &fakeProgram{s: s, spec: spec}, nil
}

func (s *fakeState) Update(u engine.Update) error {
	if err := s.on.compute("update"); err != nil {
		return err
	}
	if err := u.Validate(s.net); err != nil {
		return err
	}
	query, key, v := s.vectors[engine.QueryParams], s.vectors[engine.KeyParams], s.vectors[engine.Momentum]
	for i, g := range u.Grads {
		v[i] = u.SGDMomentum*v[i] + g
		query[i] -= u.LR * v[i]
		key[i] = u.EncoderMomentum*key[i] + (1-u.EncoderMomentum)*query[i]
	}
	for i := range u.QueryStatistics {
		s.vectors[engine.QueryBuffers][i] = 0.9*s.vectors[engine.QueryBuffers][i] + 0.1*u.QueryStatistics[i]
		s.vectors[engine.KeyBuffers][i] = 0.9*s.vectors[engine.KeyBuffers][i] + 0.1*u.KeyStatistics[i]
	}
	return nil
}

type fakeProgram struct {
	s    *fakeState
	spec engine.Spec
	seen uint64 // hash of parameters and images of the last Forward
}

func (p *fakeProgram) Spec() engine.Spec      { return p.spec }
func (p *fakeProgram) Close() error           { return nil }
func (p *fakeProgram) Features(dst []float32) { draw(dst, p.seen+1) }

func (p *fakeProgram) Forward(images, dst []float32) error {
	what, vector := "query", engine.QueryParams
	if p.spec.Encoder == engine.Key {
		what, vector = "keys", engine.KeyParams
	}
	if err := p.s.on.compute(what); err != nil {
		return err
	}
	parameters := hash(1, p.s.vectors[vector])
	p.seen = hash(parameters, images)
	dim := p.s.net.Dim
	for i := range p.spec.Batch {
		row := dst[i*dim : (i+1)*dim]
		draw(row, hash(parameters, images[i*len(images)/p.spec.Batch:(i+1)*len(images)/p.spec.Batch]))
		norm := float32(0)
		for _, x := range row {
			norm += x * x
		}
		norm = float32(math.Sqrt(float64(norm)))
		for j := range row {
			row[j] /= norm
		}
	}
	return nil
}

// Statistics are hashes between 0 and 1.
func (p *fakeProgram) Statistics(dst []float32) {
	draw(dst, p.seen+2)
	for i, x := range dst {
		dst[i] = (x + 1) / 2
	}
}

func (p *fakeProgram) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	if err := p.s.on.compute("backward"); err != nil {
		return err
	}
	draw(grads, hash(p.seen, dEmbeddings))
	if p.s.on.wrong() {
		grads[0] = math.Float32frombits(math.Float32bits(grads[0]) ^ 1<<12)
	}
	if ready != nil {
		for i := len(p.s.net.Params) - 1; i >= 0; i-- {
			ready(i)
		}
	}
	return nil
}

// hash of floats.
func hash(h uint64, values []float32) uint64 {
	for _, x := range values {
		h = splitmix.Mix(h ^ uint64(math.Float32bits(x)))
	}
	return h
}

// hashString of words, likewise.
func hashString(h uint64, s string) uint64 {
	for len(s) >= 8 {
		h = splitmix.Mix(h ^ binary.LittleEndian.Uint64([]byte(s[:8])))
		s = s[8:]
	}
	for i := range len(s) {
		h = splitmix.Mix(h ^ uint64(s[i]) ^ uint64(i)<<8)
	}
	return splitmix.Mix(h)
}

// draw fills dst with values between −1 and 1.
func draw(dst []float32, h uint64) {
	for i := range dst {
		h = splitmix.Mix(h + uint64(i))
		dst[i] = float32(int64(h>>40)-1<<23) / (1 << 23)
	}
}

// fakeImages implements input.Source: three values a view, of the draw alone,
// there at once.
type fakeImages struct{ requested []data.Request }

func (s *fakeImages) Submit(r data.Request) error {
	s.requested = append(s.requested, r)
	return nil
}

func (s *fakeImages) Next(context.Context) (*data.Batch, time.Duration, error) {
	b := s.Ready()
	if b == nil {
		return nil, 0, data.ErrNothingSubmitted
	}
	s.requested = s.requested[1:]
	return b, 0, nil
}

func (s *fakeImages) Ready() *data.Batch {
	if len(s.requested) == 0 {
		return nil
	}
	r := s.requested[0]
	return &data.Batch{Step: r.Step, Query: views(r.Query, 1), Key: views(r.Key, 2)}
}

func (s *fakeImages) Reset() { s.requested = nil }
func (s *fakeImages) Close() {}

func views(lists [][]data.Ref, side uint64) [][]float32 {
	all := make([][]float32, len(lists))
	for i, refs := range lists {
		all[i] = make([]float32, 3*len(refs))
		for j, r := range refs {
			draw(all[i][3*j:3*j+3], splitmix.Mix(uint64(r.Sample)<<20^uint64(r.Epoch)<<2^side))
		}
	}
	return all
}
