package gorgonia

import (
	"fmt"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/network"
	"mochi/model/optim"
)

// state implements engine.State. Its vectors are plain slices that the
// programs' graphs read in place.
type state struct {
	team    *cpu.Team
	clock   *clock
	net     *network.Network
	vectors map[engine.Vector][]float32
	lars    *optim.LARS // made by the first update that needs it
}

func newState(team *cpu.Team, c *clock, net *network.Network) *state {
	return &state{team: team, clock: c, net: net, vectors: map[engine.Vector][]float32{
		engine.QueryParams:  make([]float32, net.NumParams()),
		engine.KeyParams:    make([]float32, net.NumParams()),
		engine.Momentum:     make([]float32, net.NumParams()),
		engine.QueryBuffers: make([]float32, net.NumBuffers()),
		engine.KeyBuffers:   make([]float32, net.NumBuffers()),
	}}
}

func (s *state) Network() *network.Network { return s.net }

func (s *state) Host(v engine.Vector) []float32 { return s.vectors[v] }

func (s *state) Set(v engine.Vector, values []float32) {
	engine.MustSet(Name, s.net, v, values)
	copy(s.vectors[v], values)
}

func (s *state) Compile(spec engine.Spec) (engine.Program, error) {
	if err := spec.Validate(); err != nil {
		return nil, fmt.Errorf("engine gorgonia: compile %s: %w", s.net.Arch, err)
	}
	params, buffers := engine.QueryParams, engine.QueryBuffers
	if spec.Encoder == engine.Key {
		params, buffers = engine.KeyParams, engine.KeyBuffers
	}
	c, err := compile(s.team, s.clock, s.net, spec, s.vectors[params], s.vectors[buffers])
	if err != nil {
		return nil, fmt.Errorf("engine gorgonia: compile %s: %w", s.net.Arch, err)
	}
	return &program{calls: engine.Calls{Engine: Name, Net: s.net, Spec: spec, Groups: 1}, graph: c}, nil
}

// Close does nothing: the vectors are ordinary memory.
func (s *state) Close() error { return nil }

// updateChunk is the number of elements one task of Update takes.
const updateChunk = 1 << 14

func (s *state) Update(u engine.Update) error {
	if err := u.Validate(s.net); err != nil {
		return fmt.Errorf("engine gorgonia: update: %w", err)
	}
	query, key, momentum := s.vectors[engine.QueryParams], s.vectors[engine.KeyParams], s.vectors[engine.Momentum]
	rates := []optim.Rate{{End: len(query), Decay: u.WeightDecay, Rate: 1}}
	if u.Trust != 0 {
		if s.lars == nil {
			s.lars = optim.NewLARS(s.net, s.team.Threads())
		}
		rates = s.lars.Rates(u.Trust, u.WeightDecay, query, u.Grads)
	}
	s.chunks(len(query), func(from, to int) {
		optim.Cut(rates, from, to, func(from, to int, r optim.Rate) {
			step(u, r, u.Grads[from:to], momentum[from:to], query[from:to], key[from:to])
		})
	})
	running(s.vectors[engine.QueryBuffers], u.QueryStatistics)
	running(s.vectors[engine.KeyBuffers], u.KeyStatistics)
	return nil
}

// chunks runs f on parts of [0, n) in parallel.
func (s *state) chunks(n int, f func(from, to int)) {
	s.team.Run((n+updateChunk-1)/updateChunk, func(task, _ int) {
		f(task*updateChunk, min(n, (task+1)*updateChunk))
	})
}

// step is SGD with momentum and weight decay on query (θ_q), then the moving
// average on key (θ_k). The conversions keep the compiler from fusing a
// product and a sum into one rounding, see engine.Update.
func step(u engine.Update, r optim.Rate, grads, velocity, query, key []float32) {
	keep, blend := u.EncoderMomentum, 1-u.EncoderMomentum
	velocity, query, key = velocity[:len(grads)], query[:len(grads)], key[:len(grads)]
	for i, g := range grads {
		q := query[i]
		g = r.Rate * (g + float32(r.Decay*q))
		v := float32(u.SGDMomentum*velocity[i]) + float32(g)
		q -= float32(u.LR * v)
		velocity[i], query[i] = v, q
		key[i] = float32(keep*key[i]) + float32(blend*q)
	}
}

// running moves BatchNorm's running statistics towards those of a step.
func running(buffers, statistics []float32) {
	for i, s := range statistics {
		buffers[i] = float32((1-network.BatchNormMomentum)*buffers[i]) + float32(network.BatchNormMomentum*s)
	}
}
