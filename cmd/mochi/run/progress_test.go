package run

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
	"strings"
	"testing"
)

func demo(t *testing.T) config.Job {
	t.Helper()
	cfg, err := config.Preset("demo")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Where there is no terminal: the first step at once, then a line now and
// then, and the last step.
func TestPlainProgress(t *testing.T) {
	var w bytes.Buffer
	p := NewProgress(&w, demo(t))
	for step := int64(1); step <= 9; step++ {
		p.step(StepLine{Step: step, Epoch: 1, Figures: figures.Figures{Loss: 2.5, Proxy: 0.25, PosSim: 0.8, NegSim: -0.014}, ImagesPS: 64, World: 2}, 9)
	}
	p.Done()
	const want = "step 1/9  epoch 2/2  loss 2.500 (chance 8.39)  64 images/s  16s left  proxy 25.0%  pos 0.80 neg -0.01  2 replicas\n" +
		"step 9/9  epoch 2/2  loss 2.500 (chance 8.39)  64 images/s  0s left  proxy 25.0%  pos 0.80 neg -0.01  2 replicas\n"
	if w.String() != want {
		t.Errorf("shown:\n%swant:\n%s", w.String(), want)
	}
}

// On a terminal: one line, never wider than it, that gives way to others.
func TestLiveProgress(t *testing.T) {
	var w bytes.Buffer
	p := NewProgress(&w, demo(t))
	p.live, p.every, p.width = true, 0, func() int { return 40 }
	p.step(StepLine{Step: 1, World: 1, ImagesPS: 1}, 2)
	p.Say("hello")
	p.step(StepLine{Step: 2, World: 1, ImagesPS: 1}, 2)
	p.Done()
	p.Done()
	screen := strings.Split(w.String(), "\r\x1b[K")
	if len(screen) != 4 || screen[0] != "" || screen[2] != "hello\n" || !strings.HasSuffix(screen[3], "\n") {
		t.Fatalf("shown: %q", w.String())
	}
	for _, line := range screen {
		if n := len(strings.TrimSuffix(line, "\n")); n > 39 {
			t.Errorf("%d columns of 40: %q", n, line)
		}
	}
}

// A long job's line stays below 120 columns, and what does not fit is left out
// as a whole, the least important first.
func TestProgressFits(t *testing.T) {
	var w bytes.Buffer
	cfg := demo(t)
	cfg.Epochs, cfg.Queue = 200, 65536
	line := StepLine{Step: 1000000, Epoch: 199, Figures: figures.Figures{Loss: 10.957, Proxy: 1, PosSim: 0.8, NegSim: 0.76}, ImagesPS: 13400, World: 12}
	p := NewProgress(&w, cfg)
	p.step(line, 1000980)
	if n := len(w.String()) - 1; n >= 120 || !strings.Contains(w.String(), "  proxy 100.0%") {
		t.Errorf("%d columns: %s", n, w.String())
	}
	for _, c := range []struct {
		width int
		want  string
	}{
		{5, "step 1"}, {14, "step 1"}, {15, "step 1  epoch 2"}, {30, "step 1  epoch 2  loss 3  pos 4"},
	} {
		if got := fitting(c.width, "step 1", "epoch 2", "loss 3", "pos 4", "2 replicas"); got != c.want[:min(len(c.want), c.width)] {
			t.Errorf("%d columns: %q, want %q", c.width, got, c.want)
		}
	}
}

// The loss of a network that knows nothing: ln(1+K), once there are synthetic
// negatives ln(1+K+s+s′).
func TestChance(t *testing.T) {
	cfg := demo(t)
	cfg.Queue, cfg.MoCHi, cfg.MoCHiWarmup = 100, config.MoCHi{N: 10, S: 20, S2: 3}, 2
	p := NewProgress(new(bytes.Buffer), cfg)
	for epoch, want := range []float64{math.Log(101), math.Log(101), math.Log(124)} {
		if got := p.chance(epoch); got != want {
			t.Errorf("epoch %d: %v, want %v", epoch, got, want)
		}
	}
}

func TestETA(t *testing.T) {
	cfg := demo(t)
	cfg.Batch = 10
	p := &Progress{cfg: cfg}
	if got := p.eta(5); got != "?" {
		t.Errorf("before a rate is known: %s", got)
	}
	p.rate = 10 // one step a second
	for steps, want := range map[int64]string{-1: "?", 0: "0s", 59: "59s", 61: "1m01s", 3661: "1h01m", 3 * 86400: "3.0 days"} {
		if got := p.eta(steps); got != want {
			t.Errorf("%d steps: %s, want %s", steps, got, want)
		}
	}
}

func TestPlainLog(t *testing.T) {
	var w bytes.Buffer
	log := slog.New(PlainLog{Progress: NewProgress(&w, demo(t)), Level: slog.LevelInfo}).With("job", "mochi", "replica", "r1")
	log.Debug("unseen")
	log.Info("round", "reason", "start", "step", 3, "members", "r1 r2", "round", 2, "id", "r1-abc", "empty", "")
	log.Warn("replica lost", "why", errors.New("silent"))
	const want = "round 2  replica r1  step 3  members r1 r2  reason start\nwarning: replica lost  replica r1  why silent\n"
	if w.String() != want {
		t.Errorf("shown %q, want %q", w.String(), want)
	}
}
