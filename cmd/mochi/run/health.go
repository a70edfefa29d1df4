package run

import (
	"fmt"
	"mochi/coordinator/protocol/config"
	"strings"
)

// Collapse: different images get all but the same embedding. The spread of
// embeddings is √(1 − mean cosine between them), so 0.1 is a cosine of 0.99.
// Two steps below it, in a run whose first step had twice as much, are a collapse.
// A network that starts near it has an epoch and twenty steps to leave it; then the
// mean over some twenty steps counts, not one batch.
const (
	collapsed   = 0.1
	spreadDecay = 0.05
)

// health watches the figures of the loss for what will not get better by
// itself.
type health struct {
	first  float64 // of the first step seen
	before float64 // of the step before
	spread float64 // running mean
	steps  int
	warned bool
}

// look takes a step's figures in a job of cfg on so many images (0: not known); the
// text, if any, is a warning to show once.
func (h *health) look(line StepLine, cfg config.Job, images int) string {
	if line.Spread <= 0 { // none reported: a step recovered from an old log
		return ""
	}
	before := h.before
	if h.steps++; h.steps == 1 {
		h.first, h.spread, before = line.Spread, line.Spread, line.Spread
	}
	h.before = line.Spread
	h.spread += spreadDecay * (line.Spread - h.spread)
	fell := h.first >= 2*collapsed && before < collapsed && line.Spread < collapsed
	stays := line.Epoch >= 1 && h.steps >= 20 && h.spread < collapsed
	if h.warned || !fell && !stays {
		return ""
	}
	h.warned = true
	if fell {
		h.spread = min(h.spread, (before+line.Spread)/2)
	}
	return fmt.Sprintf("embeddings are collapsing: their spread is %.3f (1 = evenly over the sphere, 0 = all images alike) at step %d, loss %.3f; "+
		"try %s (docs/loss-health.md)", h.spread, line.Step, line.Loss, strings.Join(remedies(cfg, images), ", or "))
}

// remedies are what may help against a collapse of this run, the likeliest first.
func remedies(cfg config.Job, images int) (try []string) {
	if cfg.Momentum < 0.9 {
		try = append(try, fmt.Sprintf("--momentum 0.99 instead of %g", cfg.Momentum))
	}
	if cfg.Recipe == "none" {
		try = append(try, "a --recipe that augments: with none both views of an image are the same")
	}
	if text := cfg.TooLargeFor(images); text != "" {
		try = append(try, "a queue and batch that fit the data ("+text+")")
	}
	try = append(try, fmt.Sprintf("a lower --lr than %g", cfg.LR))
	if cfg.Temperature > 0.2 {
		try = append(try, fmt.Sprintf("a lower --temperature than %g", cfg.Temperature))
	}
	return try
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
