package run

import (
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
	"strings"
	"testing"
)

// A collapse is told once, after the first epoch, and not for one bad batch.
func TestCollapseIsToldOnce(t *testing.T) {
	var h health
	for step := range int64(100) {
		line := StepLine{Step: step, Epoch: int(step / 50), Figures: figures.Figures{Spread: 0.01}}
		if text := h.look(line); (text != "") != (step == 50) {
			t.Fatalf("step %d: %q", step, text)
		} else if text != "" && !strings.Contains(text, "--lr") {
			t.Errorf("%q does not say what to try", text)
		}
	}
	h = health{}
	for step := range int64(100) {
		line := StepLine{Step: step, Epoch: 3, Figures: figures.Figures{Spread: 0.8}}
		if step%10 == 9 {
			line.Spread = 0.001
		}
		if text := h.look(line); text != "" {
			t.Fatalf("one bad batch in ten: %q", text)
		}
	}
}

func TestQueueAge(t *testing.T) {
	c := config.Job{Batch: 4, Queue: 12}
	for samples, want := range map[int64]float64{0: 0, 4: 1, 8: 1.5, 12: 2, 16: 2, 4000: 2} {
		if got := queueAge(samples, c); got != want {
			t.Errorf("after %d samples: %g steps, want %g", samples, got, want)
		}
	}
}
