package main

import (
	"fmt"

	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/network"
	"mochi/replica/checkpoint"
	"mochi/replica/queue"
)

// loadCheckpoint reads a checkpoint and builds its network from the
// configuration it carries.
func loadCheckpoint(path string) (*checkpoint.State, *network.Network, error) {
	st, err := checkpoint.Load(path)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := config.Parse([]byte(st.Config))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: its config: %w", path, err)
	}
	net, err := cfg.Network()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := st.Matches(net, cfg.Queue, cfg.Dim); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return st, net, nil
}

// initialState is the state in which a run of cfg begins.
func initialState(cfg config.Job, net *network.Network) *checkpoint.State {
	st := &checkpoint.State{Arch: net.Arch, Net: net, Seed: cfg.Seed, K: cfg.Queue, Dim: cfg.Dim}
	st.QueryParams, st.QueryBuffers = net.Init(cfg.Seed)
	st.KeyParams, st.KeyBuffers = st.QueryParams, st.QueryBuffers
	q := queue.New(cfg.Queue, cfg.Dim, cfg.QueueShards)
	q.Init(cfg.Seed)
	st.Queue, st.QueueLabels = q.Keys(), q.Labels()
	return st
}

// encoders are those of a checkpoint, in an engine.
type encoders struct {
	engine engine.Engine
	state  engine.State
	why    string // the engine
}

// openEncoders opens an engine and gives it the encoders of st.
func openEncoders(name string, cfg engine.Config, net *network.Network, st *checkpoint.State) (*encoders, error) {
	eng, why, err := openEngine(name, cfg)
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
	return &encoders{eng, state, why}, nil
}

func (e *encoders) close() {
	e.state.Close()
	e.engine.Close()
}
