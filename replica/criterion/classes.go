package criterion

import (
	"context"

	"mochi/model/loss"
)

// Classes is the loss of a supervised job: the cross-entropy of the logits, which
// take the place of queries. It needs neither keys nor a queue nor other members.
type Classes struct {
	shape Shape
	loss  loss.Classes
	units []Rows

	step   Step
	logits []float32
	losses Losses
}

// NewClasses makes the criterion of a member that computes units, [g·n] samples each.
// shape.Dim is the number of classes.
func NewClasses(smoothing float64, units []Rows, shape Shape) *Classes {
	c := &Classes{shape: shape, loss: loss.Classes{Classes: shape.Dim, Smoothing: smoothing}, units: units}
	if len(units) > 0 {
		samples := units[0].Hi - units[0].Lo
		c.logits, c.losses = make([]float32, samples*shape.Dim), shape.results(samples)
	}
	return c
}

// Begin starts a step, whose Labels are the classes of the batch.
func (c *Classes) Begin(step Step) (waves int) {
	c.step = step
	return len(c.units)
}

// Queries is where the logits of a unit go.
func (c *Classes) Queries(int) []float32 { return c.logits }

// Evaluate computes the losses of a unit.
func (c *Classes) Evaluate(_ context.Context, wave int) (Losses, error) {
	labels := c.step.Labels[c.units[wave].Lo:c.units[wave].Hi]
	samples := len(labels) / c.shape.Groups
	for j := range c.losses.Groups {
		g := &c.losses.Groups[j]
		lo, hi := j*samples, (j+1)*samples
		sum, right, err := c.loss.Compute(c.logits[lo*c.shape.Dim:hi*c.shape.Dim], labels[lo:hi], 1/float64(c.shape.Batch), g.DQ)
		if err != nil {
			return Losses{}, err
		}
		g.Loss, g.TrainAcc = sum, float64(right)
	}
	return c.losses, nil
}
