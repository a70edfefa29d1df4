package run

import (
	"fmt"
	"io"
	"math"
	"mochi/cmd/mochi/cli"
	"mochi/coordinator/protocol/config"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress shows a running job on stderr: one line rewritten in place on a
// terminal, a plain line now and then elsewhere.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool       // a terminal: one line, rewritten in place
	width func() int // of the terminal, columns
	every time.Duration

	cfg   config.Job
	rate  float64   // images/s, smoothed
	last  time.Time // of the last line, zero before the first
	shown bool      // a live line is on screen
}

// NewProgress shows a job of cfg on w.
func NewProgress(w io.Writer, cfg config.Job) *Progress {
	p := &Progress{w: w, cfg: cfg, every: 5 * time.Second}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live, p.every = true, 100*time.Millisecond
		p.width = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil || columns < 20 {
				return 80
			}
			return columns
		}
	}
	return p
}

// chance is the loss of a network that cannot tell the key from the
// negatives: ln(1+K), with the synthetic ones ln(1+K+s+s′); of C classes ln C.
func (p *Progress) chance(epoch int) float64 {
	if p.cfg.Supervised {
		return math.Log(float64(p.cfg.Labels))
	}
	negatives := p.cfg.Queue
	if epoch >= p.cfg.MoCHiWarmup {
		negatives += p.cfg.MoCHi.S + p.cfg.MoCHi.S2
	}
	return math.Log(float64(negatives + 1))
}

// step shows a committed step of steps in all: the first, then one now and
// then, and the last.
func (p *Progress) step(line StepLine, steps int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		p.rate = line.ImagesPS
	}
	p.rate += 0.2 * (line.ImagesPS - p.rate)
	now := time.Now()
	if now.Sub(p.last) < p.every && line.Step != steps {
		return
	}
	p.last = now
	limit := plainWidth
	if p.live {
		limit = p.width() - 1 // a line that wraps could not be rewritten
	}
	learned := []string{fmt.Sprintf("proxy %.1f%%", 100*line.Proxy), fmt.Sprintf("pos %.2f neg %.2f", line.PosSim, line.NegSim)}
	switch {
	case p.cfg.Supervised:
		learned = []string{fmt.Sprintf("accuracy %.1f%%", 100*line.TrainAcc)}
	case p.cfg.Probe:
		learned = append([]string{fmt.Sprintf("probe %.1f%%", 100*line.ProbeAcc)}, learned...)
	}
	text := fitting(limit, slices.Concat([]string{
		fmt.Sprintf("step %d/%d", line.Step, steps),
		fmt.Sprintf("epoch %d/%d", line.Epoch+1, p.cfg.Epochs),
		fmt.Sprintf("loss %.3f (chance %.2f)", line.Loss, p.chance(line.Epoch)),
		fmt.Sprintf("%.0f images/s", p.rate),
		p.eta(steps-line.Step) + " left",
	}, learned, []string{cli.Count(line.World, "replica")})...)
	if p.live {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.shown = true
		return
	}
	fmt.Fprintln(p.w, text)
}

// plainWidth is the widest a line is where there is no terminal, columns.
const plainWidth = 119

// fitting joins as many of the parts, the most important first, as limit
// columns hold. All are ASCII.
func fitting(limit int, parts ...string) string {
	text := parts[0]
	for _, part := range parts[1:] {
		if len(text)+2+len(part) > limit {
			break
		}
		text += "  " + part
	}
	return text[:min(len(text), limit)]
}

// Say prints a line of its own, for what changes.
func (p *Progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Done ends the live line.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprintln(p.w)
		p.shown = false
	}
}

// eta is how long so many steps take.
func (p *Progress) eta(steps int64) string {
	if p.rate <= 0 || steps < 0 {
		return "?"
	}
	left := time.Duration(float64(steps) * float64(p.cfg.Batch) / p.rate * float64(time.Second))
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
