package run

import (
	"fmt"
	"mochi/coordinator/protocol/config"
)

// Collapse: different images get all but the same embedding. The spread of
// embeddings is √(1 − mean cosine between them), so 0.1 is a cosine of 0.99;
// networks start near it, hence the first epoch is let pass, and the mean over
// some twenty steps counts, not one batch.
const (
	collapsed   = 0.1
	spreadDecay = 0.05
)

// health watches the figures of the loss for what will not get better by
// itself.
type health struct {
	spread float64 // running mean
	steps  int
	warned bool
}

// look takes a step's figures; the text, if any, is a warning to show once.
func (h *health) look(line StepLine) string {
	if line.Spread <= 0 { // none reported: a step recovered from an old log
		return ""
	}
	if h.steps++; h.steps == 1 {
		h.spread = line.Spread
	}
	h.spread += spreadDecay * (line.Spread - h.spread)
	if h.warned || line.Epoch < 1 || h.steps < 20 || h.spread >= collapsed {
		return ""
	}
	h.warned = true
	return fmt.Sprintf("embeddings are collapsing: their spread is %.3f (1 = evenly over the sphere, 0 = all images alike) at step %d, loss %.3f; "+
		"try a lower --lr, --momentum nearer to 1, a lower --temperature or a longer --queue, and check that --recipe still leaves images distinguishable",
		h.spread, line.Step, line.Loss)
}

// queueAge is the mean age, in steps, of the queue's keys that are samples', in
// the step that follows so many committed samples: those of the step before
// are 1 step old, and a full queue's oldest K/B. (After a change of K or B it
// is that of a queue filled with the new ones.)
func queueAge(samples int64, c config.Job) float64 {
	if samples < 1 || c.Batch < 1 || c.Supervised {
		return 0
	}
	return (min(float64(samples), float64(c.Queue))/float64(c.Batch) + 1) / 2
}
