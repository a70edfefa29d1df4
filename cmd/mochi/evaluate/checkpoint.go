package evaluate

import (
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/queue"
)

// InitialState is the state in which a run of cfg begins.
func InitialState(cfg config.Job, net *network.Network) *checkpoint.State {
	st := &checkpoint.State{Arch: net.Arch, Net: net, Seed: cfg.Seed, K: cfg.Queue, Dim: cfg.Dim}
	st.QueryParams, st.QueryBuffers = net.Init(cfg.Seed)
	st.KeyParams, st.KeyBuffers = st.QueryParams, st.QueryBuffers
	q := queue.New(cfg.Queue, cfg.Dim, cfg.Shards())
	q.Init(cfg.Seed)
	st.Queue, st.QueueLabels = q.Keys(), q.Labels()
	return st
}

// Encoders are those of a checkpoint, in an engine.
type Encoders struct {
	engine engine.Engine
	state  engine.State
	from   *checkpoint.State

	precision engine.Precision
	sum       string                  // of the query encoder, when it was asked for (digest)
	kept      map[string]keptFeatures // of the last evaluation, for another seed; by split

	Why string // this engine, for people
}

// keptFeatures are those of a view that draws nothing, and what they are of.
type keptFeatures struct {
	of string
	*extracted
}

// OpenEncoders opens an engine and gives it the encoders of st.
func OpenEncoders(name string, cfg engine.Config, net *network.Network, st *checkpoint.State) (*Encoders, error) {
	eng, why, err := engines.Open(name, cfg)
	if err != nil {
		return nil, err
	}
	state, err := eng.NewState(net)
	if err != nil {
		eng.Close()
		return nil, err
	}
	state.Set(engine.QueryParams, st.QueryParams)
	state.Set(engine.QueryBuffers, st.QueryBuffers)
	state.Set(engine.KeyParams, st.KeyParams)
	state.Set(engine.KeyBuffers, st.KeyBuffers)
	return &Encoders{engine: eng, state: state, from: st, precision: cfg.Precision, Why: why, kept: map[string]keptFeatures{}}, nil
}

// Threads is how many the engine computes on.
func (e *Encoders) Threads() int { return e.engine.Info().Threads }

// Close ends the engine.
func (e *Encoders) Close() {
	e.state.Close()
	e.engine.Close()
}
