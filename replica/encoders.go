package replica

import (
	"errors"
	"fmt"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// encoders are the two encoders and their optimiser on this replica's engine.
type encoders struct {
	net    *network.Network
	engine engine.Engine
	moco   *model.MoCo
	atOnce int          // groups that one of its programs computes: those of a unit
	probe  *onlineProbe // --probe
}

func newEncoders(job config.Job, rc Config) (*encoders, error) {
	build := config.Job.Network
	if rc.Network != nil {
		build = rc.Network
	}
	net, err := build(job)
	if err != nil {
		return nil, fmt.Errorf("build the network: %w", err)
	}
	eng, err := rc.Engine(engine.Precision(job.Precision))
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	moco, err := model.New(eng, net, modelConfig(job))
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	n := moco.GroupsAtOnce()
	return &encoders{net: net, engine: eng, moco: moco, atOnce: n, probe: newOnlineProbe(job, net, n)}, nil
}

// modelConfig is the part of a job's configuration that the method needs.
func modelConfig(c config.Job) model.Config {
	return model.Config{
		BNGroup: c.BNGroup, GroupsAtOnce: c.GroupsAtOnce,
		Queue: c.Queue, LossBatch: c.Batch,
		Loss: loss.Config{
			N: c.MoCHi.N, S: c.MoCHi.S, S2: c.MoCHi.S2,
			PairsInShard: c.PairsInShard(), Temperature: c.Temperature, Shards: c.Shards(), Seed: c.Seed,
		},
		Momentum:    c.Momentum,
		SGDMomentum: c.SGDMomentum,
		WeightDecay: c.WeightDecay,
		LARS:        c.Optimizer == "lars",
		Alone:       c.Supervised,
	}
}

func (e *encoders) close() error { return errors.Join(e.moco.Close(), e.engine.Close()) }

// unit names the groups of a unit, for messages.
func (e *encoders) unit(first int) string {
	if e.atOnce == 1 {
		return fmt.Sprintf("group %d", first)
	}
	return fmt.Sprintf("groups %d to %d", first, first+e.atOnce-1)
}

// digests are that of the query encoder's parameters, and one of everything that
// must be equal on all replicas but the queue, whose shards have their own. Other
// work of the phase is done beside them.
func (e *encoders) digests(t *phases, beside ...func()) (parameters, all string) {
	vectors := make([][]float32, len(engine.Vectors))
	for i, v := range engine.Vectors {
		vectors[i] = e.moco.State().Host(v)
	}
	vectors = append(vectors, e.probe.state().Vectors()...)
	each := t.digests(protocol.MeasureApplied, vectors, beside...)
	return each[slices.Index(engine.Vectors, engine.QueryParams)], checkpoint.StateDigest(each)
}

// fill puts the encoders into a checkpoint. Its vectors are the engine's.
func (e *encoders) fill(c *checkpoint.State) {
	state := e.moco.State()
	c.Net = e.net
	c.QueryParams, c.KeyParams = state.Host(engine.QueryParams), state.Host(engine.KeyParams)
	c.Momentum = state.Host(engine.Momentum)
	c.QueryBuffers, c.KeyBuffers = state.Host(engine.QueryBuffers), state.Host(engine.KeyBuffers)
	c.Probe = e.probe.state()
}

// restore takes the encoders of a checkpoint that matches their network.
func (e *encoders) restore(c *checkpoint.State) {
	state := e.moco.State()
	state.Set(engine.QueryParams, c.QueryParams)
	state.Set(engine.KeyParams, c.KeyParams)
	state.Set(engine.Momentum, c.Momentum)
	state.Set(engine.QueryBuffers, c.QueryBuffers)
	state.Set(engine.KeyBuffers, c.KeyBuffers)
	e.probe.restore(c.Probe)
}
