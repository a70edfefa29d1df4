package main

import (
	"strings"
	"testing"

	"mochi/coordinator/protocol"
)

// A collapse is told once, after the first epoch, and not for one bad batch.
func TestCollapseIsToldOnce(t *testing.T) {
	var h health
	for step := range int64(100) {
		line := logLine{Step: step, Epoch: int(step / 50), Spread: 0.01}
		if text := h.look(line); (text != "") != (step == 50) {
			t.Fatalf("step %d: %q", step, text)
		} else if text != "" && !strings.Contains(text, "--lr") {
			t.Errorf("%q does not say what to try", text)
		}
	}
	h = health{}
	for step := range int64(100) {
		line := logLine{Step: step, Epoch: 3, Spread: 0.8}
		if step%10 == 9 {
			line.Spread = 0.001
		}
		if text := h.look(line); text != "" {
			t.Fatalf("one bad batch in ten: %q", text)
		}
	}
}

func TestQueueAge(t *testing.T) {
	c := protocol.Config{Batch: 4, Queue: 12}
	for step, want := range map[int64]float64{1: 0, 2: 1, 3: 1.5, 4: 2, 5: 2, 1000: 2} {
		if got := queueAge(step, c); got != want {
			t.Errorf("before step %d: %g steps, want %g", step, got, want)
		}
	}
}
