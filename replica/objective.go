package replica

import (
	"context"

	"mochi/coordinator/protocol/config"
	"mochi/replica/criterion"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// objective is what a job learns from: what its steps have besides the way of the
// queries forward and backward, which is that of all. newObjective chooses it; nothing
// else of a step asks of what kind a job is.
type objective interface {
	// encodeKeys encodes the key views of this member's units into s.keys, and gather
	// brings everybody's there, as the positives of the batch.
	encodeKeys(ctx context.Context, p *party, batch *input.Step, terms []reduction.Terms) error
	gather(ctx context.Context, p *party, batch *input.Step) error
	// keysAgain encodes the key views of a unit that is computed besides, [n·g, …], into
	// keys, and their statistics.
	keysAgain(images, keys, stats []float32) error
	// criterion is the loss of a round's units, of those that are computed after so
	// many waves of the same step.
	criterion(p *party, after int) criterion.Criterion
	// enqueue puts the keys of a committed step, of samples of these classes, into the
	// queue.
	enqueue(classes []int32) error
}

func newObjective(s *session) objective {
	if s.job.Supervised {
		return supervised{s}
	}
	return contrastive{s}
}

// keyWidth is the length of the keys of a job, 0 where it has none.
func keyWidth(job config.Job) int {
	if job.Supervised {
		return 0
	}
	return job.Dim
}

// contrastive is MoCo's: a query's positive is the key of the same sample, its negatives
// are the queue. (keys.go has how keys come about.)
type contrastive struct{ *session }

func (c contrastive) keysAgain(images, keys, stats []float32) error {
	return c.model.moco.Keys(images, keys, stats)
}

func (c contrastive) criterion(p *party, after int) criterion.Criterion {
	l, g, n := c.model.moco.Loss(), c.job.BNGroup, c.model.atOnce
	if p.Spread() {
		return criterion.NewSpread(l, c.queue.Queue, p.ring, p.deal(g, n, after), c.job.MoCHi.N, c.shape())
	}
	return criterion.NewLocal(l, c.queue.Queue, p.rows(p.rank, g, n), c.shape())
}

func (c contrastive) enqueue(classes []int32) error { return c.queue.Enqueue(c.keys.ordered, classes) }

// supervised learns from the samples' classes. It has no keys, and its queue stays as
// it began, with one: the state's form is that of all jobs.
type supervised struct{ *session }

func (supervised) encodeKeys(context.Context, *party, *input.Step, []reduction.Terms) error {
	return nil
}
func (supervised) gather(context.Context, *party, *input.Step) error { return nil }
func (supervised) keysAgain(_, _, _ []float32) error                 { return nil }
func (supervised) enqueue([]int32) error                             { return nil }

func (c supervised) criterion(p *party, _ int) criterion.Criterion {
	return criterion.NewClasses(c.job.LabelSmoothing, p.rows(p.rank, c.job.BNGroup, c.model.atOnce), c.shape())
}

// shape is what all criteria know of the job.
func (s *session) shape() criterion.Shape {
	return criterion.Shape{Batch: s.job.Batch, Dim: s.job.Dim, Groups: s.model.atOnce}
}
