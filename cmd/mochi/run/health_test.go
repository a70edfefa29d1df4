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
		if text := h.look(line, config.Default(), 0); (text != "") != (step == 50) {
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
		if text := h.look(line, config.Default(), 0); text != "" {
			t.Fatalf("one bad batch in ten: %q", text)
		}
	}
}

// A fall below the limit is told at its second step, however short the run, with what
// is true for it: nothing of the queue where it fits, its numbers where it does not.
func TestFallIsToldAtOnce(t *testing.T) {
	cfg := config.Default()
	cfg.Momentum, cfg.Temperature, cfg.Queue, cfg.LR = 0.99, 0.1, 4096, 0.06
	for _, c := range []struct {
		images    int
		recipe    string
		momentum  float64
		has, lack []string
	}{
		{60000, "moco-v2", 0.99, []string{"a lower --lr than 0.06", "docs/loss-health.md"}, []string{"queue", "--momentum", "--recipe", "--temperature"}},
		{240, "moco-v2", 0.99, []string{"--queue 96", "--lr"}, []string{"longer --queue", "--momentum"}},
		{0, "none", 0, []string{"--recipe", "--momentum 0.99 instead of 0"}, []string{"queue"}},
	} {
		cfg := cfg
		cfg.Recipe, cfg.Momentum, cfg.Batch, cfg.BNGroup, cfg.MoCHi = c.recipe, c.momentum, 128, 32, config.MoCHi{N: 256, S: 256, S2: 32}
		var h health
		for i, spread := range []float64{0.5, 0.3, 0.09, 0.2, 0.08, 0.07, 0.06} {
			text := h.look(StepLine{Step: int64(i + 1), Figures: figures.Figures{Spread: spread}}, cfg, c.images)
			if (text != "") != (i == 5) {
				t.Fatalf("step %d: %q", i+1, text)
			}
			for _, want := range c.has {
				if text != "" && !strings.Contains(text, want) {
					t.Errorf("%q lacks %q", text, want)
				}
			}
			for _, wrong := range c.lack {
				if strings.Contains(text, wrong) {
					t.Errorf("%q speaks of %q", text, wrong)
				}
			}
		}
	}
	var h health
	for step := range int64(200) { // it starts near the limit and leaves it
		line := StepLine{Step: step, Figures: figures.Figures{Spread: 0.05 + 0.002*float64(step)}}
		if text := h.look(line, cfg, 60000); text != "" {
			t.Fatalf("step %d: %q", step, text)
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
