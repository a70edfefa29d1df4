package criterion

import (
	"context"

	"mochi/model/loss"
	"mochi/replica/queue"
)

// Local is the loss against a queue that this member holds whole. It needs
// nobody else: its waves are its own units.
type Local struct {
	shape Shape
	loss  *loss.Loss
	queue *queue.Queue
	units []Rows

	step   Step
	shards []loss.Shard
	q      []float32
	losses Losses
}

// NewLocal makes the criterion of a member that computes units, [g·n] samples
// each.
func NewLocal(l *loss.Loss, q *queue.Queue, units []Rows, shape Shape) *Local {
	c := &Local{shape: shape, loss: l, queue: q, units: units}
	if len(units) > 0 {
		samples := units[0].Hi - units[0].Lo
		c.q, c.losses = make([]float32, samples*shape.Dim), shape.results(samples)
	}
	return c
}

// Begin starts a step.
func (c *Local) Begin(step Step) (waves int) {
	c.step, c.shards = step, AppendShards(c.shards[:0], c.queue, step.Labels != nil)
	return len(c.units)
}

// Queries is where the queries of a unit go.
func (c *Local) Queries(int) []float32 { return c.q }

// Evaluate computes the losses of a unit.
func (c *Local) Evaluate(_ context.Context, wave int) (Losses, error) {
	rows, d := c.units[wave], c.shape.Dim
	err := c.loss.ComputeGroups(loss.Input{
		Queries: c.step.queries(rows, c.q), Pos: c.step.Keys[rows.Lo*d : rows.Hi*d],
		Shards: c.shards, Scale: 1 / float64(c.shape.Batch),
	}, c.losses.Groups)
	return c.losses, err
}
