package replica

import (
	"context"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
)

// Link is the way to the coordinator.
type Link interface {
	// Send delivers a message to the coordinator, in order. It may buffer
	// while the connection is being restored.
	Send(ctx context.Context, m protocol.Message) error
	// Messages are those of the coordinator to this replica, in order. The
	// channel is closed when the link is.
	Messages() <-chan protocol.Message
	// Upload stores a checkpoint (safetensors) at the coordinator.
	Upload(ctx context.Context, step int64, state []byte) error
	// Download reads a checkpoint by the name given in a Round.
	Download(ctx context.Context, name string) ([]byte, error)
}

// Ring is the collectives of one round (an allreduce.Group).
type Ring interface {
	AllReduceSumChecked(ctx context.Context, tag allreduce.Tag, data []float32, check *allreduce.Check) error
	AllReduceMax(ctx context.Context, tag allreduce.Tag, data []float32) error
	AllGather(ctx context.Context, tag allreduce.Tag, data []float32, counts []int) error
	Broadcast(ctx context.Context, tag allreduce.Tag, root int, data []byte) error
	Close() error
}

// Tags of the collectives of a step and of a round. The reduction of gradients
// has those from 0 on, the criterion of a spread queue those from 1<<26 on.
const (
	keysTag     = 1 << 24
	recoveryTag = 1 << 25
	gatherTag   = 1<<25 + 1<<23
	transferTag = 1<<25 + 1<<24
)

// OpenRing connects this replica to its neighbours in a round. The ring is
// closed by the replica when the round ends; job says how it is to be.
type OpenRing func(ctx context.Context, round protocol.Round, rank int, job config.Job) (Ring, error)

// OpenEngine starts this replica's engine in the precision of the job, which
// the coordinator decides. The replica closes it when it ends.
type OpenEngine func(precision engine.Precision) (engine.Engine, error)
