package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"mochi/coordinator/protocol"
)

// progress shows a running job on stderr: one line rewritten in place on a
// terminal, a plain line now and then elsewhere.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool // terminal
	every time.Duration

	cfg     protocol.Config
	steps   int64 // of the whole job, 0 = not known yet
	chance  float64
	rate    float64 // images/s, smoothed
	last    time.Time
	shown   bool // a live line is on screen
	started time.Time
}

func newProgress(w io.Writer, cfg protocol.Config) *progress {
	p := &progress{w: w, cfg: cfg, every: 5 * time.Second, started: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live, p.every = true, 100*time.Millisecond
	}
	// The loss of a network that cannot tell the key from the negatives.
	p.chance = math.Log(float64(cfg.Queue + cfg.MoCHi.S + cfg.MoCHi.S2 + 1))
	return p
}

// step shows a committed step.
func (p *progress) step(line logLine, steps int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps = steps
	if p.rate == 0 {
		p.rate = line.ImagesPS
	}
	p.rate += 0.2 * (line.ImagesPS - p.rate)
	now := time.Now()
	if now.Sub(p.last) < p.every && line.Step != p.steps && p.last.After(p.started) {
		return
	}
	p.last = now
	text := fmt.Sprintf("step %d/%d  epoch %d/%d  loss %.3f (chance %.2f)  proxy %.1f%%  %.0f images/s  %s left  %d replicas",
		line.Step, p.steps, line.Epoch+1, p.cfg.Epochs, line.Loss, p.chance, 100*line.Proxy, p.rate, p.eta(line.Step), line.World)
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.shown = true
		return
	}
	fmt.Fprintln(p.w, text)
}

// say prints a line of its own, for what changes.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// done ends the live line.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprintln(p.w)
		p.shown = false
	}
}

func (p *progress) eta(step int64) string {
	if p.rate <= 0 || p.steps < step {
		return "?"
	}
	left := time.Duration(float64(p.steps-step) * float64(p.cfg.Batch) / p.rate * float64(time.Second))
	switch {
	case left >= 48*time.Hour:
		return fmt.Sprintf("%.1f days", left.Hours()/24)
	case left >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(left.Hours()), int(left.Minutes())%60)
	case left >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(left.Minutes()), int(left.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(left.Seconds()))
}
