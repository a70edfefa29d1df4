// Package failover lets the coordinator that leads a group of three or five fail at random
// moments, again and again, as real processes: it is killed and started again, or
// stopped for 30 s and continued, or cut off from the other coordinators. It measures
// the time to the next commit and checks at the end what was promised: every step once
// and in order in the log of each coordinator, all logs the same, the last checkpoint of
// each that of an undisturbed run, and no replica that ended.
//
//	go run ./tools/chaos failover --times 30 --how kill|stop|cut [--coordinators 5]
//
// Replicas reach each coordinator through a relay (package relay) that delays what they
// say, so that a step takes as long as in a real cluster and costs no more; coordinators
// reach each other through one for each pair, which the cut closes.
package failover

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"mochi/tools/chaos/relay"
)

// Job is what is trained.
type Job struct {
	Images   func(folder string) error // writes the data set
	Settings []string
}

// report is what the faults cost, in ms.
type report struct {
	How          string    `json:"how"`
	Coordinators int       `json:"coordinators"`
	Times        int       `json:"times"`
	MedianMs     float64   `json:"median_ms"` // from the fault to the next commit
	WorstMs      float64   `json:"worst_ms"`
	StepMs       float64   `json:"step_ms"` // median of the steps
	Steps        int64     `json:"steps"`
	AllMs        []float64 `json:"all_ms"`
}

// Limits of what a failover may take: beside a step at the median, and at worst.
const (
	medianLimit = 4 * time.Second
	worstLimit  = 12 * time.Second
)

// hold is how long a fault lasts.
var hold = map[string]time.Duration{"kill": 3 * time.Second, "stop": 30 * time.Second, "cut": 15 * time.Second}

// slowly is how long what replicas and a coordinator say to each other takes, each way.
const slowly = 15 * time.Millisecond

// Run does what the arguments say and returns the exit status: 0 all was kept, 1
// something was broken, 2 wrong usage. The last line of out is one JSON object.
func Run(ctx context.Context, job Job, args []string, out, errs io.Writer) int {
	t := &trial{job: job, errs: errs, began: time.Now()}
	f := flag.NewFlagSet("chaos failover", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&t.mochi, "mochi", "bin/mochi", "the program")
	f.StringVar(&t.folder, "out", "", "folder for all that is left (default: a new one, removed when all was kept)")
	f.StringVar(&t.how, "how", "kill", "kill, stop or cut")
	times := f.Int("times", 30, "how often")
	members := f.Int("coordinators", 3, "how many the group has, 3 or 5")
	seed := f.Uint64("seed", 1, "draws the moments")
	keep := f.Bool("keep", false, "leave the folder")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if hold[t.how] == 0 || f.NArg() > 0 || *times < 1 || *members != 3 && *members != 5 {
		fmt.Fprintln(errs, "chaos failover: --how is kill, stop or cut; --times is positive; --coordinators is 3 or 5; no other arguments")
		return 2
	}
	t.names = []string{"v", "w", "x", "y", "z"}[:*members]
	t.random = rand.New(rand.NewPCG(*seed, 29))
	*keep = *keep || t.folder != ""
	r, err := t.run(ctx, *times)
	if err != nil {
		t.blame("%v", err)
	}
	t.close()
	for _, b := range t.broken {
		fmt.Fprintln(errs, "BROKEN:", b)
	}
	if *keep || len(t.broken) > 0 {
		fmt.Fprintln(errs, "what is left is in", t.folder)
	} else if err := os.RemoveAll(t.folder); err != nil {
		fmt.Fprintln(errs, "chaos failover:", err)
	}
	line, err := json.Marshal(map[string]any{"mode": "failover", "seed": *seed, "broken": len(t.broken), "report": r})
	if err != nil {
		fmt.Fprintln(errs, "chaos failover:", err)
		return 1
	}
	fmt.Fprintln(out, string(line))
	return min(1, len(t.broken))
}

// trial is one group with its replicas, and what became of it.
type trial struct {
	job                Job
	mochi, folder, how string
	errs               io.Writer
	began              time.Time
	random             *rand.Rand

	names        []string // of the coordinators
	data         string
	coordinators []*process
	states       []string // of each
	replicas     []*process
	relays       []*relay.Relay
	pairs        map[[2]int]*relay.Relay // where the first coordinator reaches the second
	broken       []string
}

func (t *trial) blame(format string, args ...any) {
	t.broken = append(t.broken, fmt.Sprintf(format, args...))
}

func (t *trial) note(format string, args ...any) {
	fmt.Fprintf(t.errs, "%8.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// run does the faults and checks what became of the job.
func (t *trial) run(ctx context.Context, times int) (r report, err error) {
	r.How, r.Coordinators = t.how, len(t.names)
	if err := t.build(); err != nil {
		return r, err
	}
	for _, p := range slices.Concat(t.coordinators, t.replicas) {
		if err := p.start(t.mochi, t.folder); err != nil {
			return r, err
		}
	}
	for n := 0; n < times; {
		if err := t.settle(ctx); err != nil {
			return r, err
		}
		if err := wait(ctx, time.Duration(t.random.Int64N(int64(3*time.Second)))); err != nil {
			return r, err
		}
		leader, err := t.leader()
		if err != nil {
			return r, err
		}
		at, back, err := t.inflict(leader)
		if err != nil {
			return r, err
		}
		ms, err := t.next(ctx, at, leader)
		if errors.Is(err, errLedNoMore) { // another had been elected just before: nothing was put to the test
			t.note("%s of %s, which did not lead any more: once more", t.how, t.coordinators[leader].name)
			if err := back(); err != nil {
				return r, err
			}
			continue
		}
		if err != nil {
			return r, err
		}
		n++
		t.note("%d: %s of %s: next commit after %.0f ms", n, t.how, t.coordinators[leader].name, ms)
		r.AllMs = append(r.AllMs, ms)
		if err := wait(ctx, time.Until(at.Add(hold[t.how]))); err != nil {
			return r, err
		}
		if err := back(); err != nil {
			return r, err
		}
	}
	if err := t.settle(ctx); err != nil {
		return r, err
	}
	if r.Steps, err = t.end(ctx); err != nil {
		return r, err
	}
	return r, t.check(ctx, &r)
}

// settle waits until all coordinators have steps that were committed after now.
func (t *trial) settle(ctx context.Context) error {
	first := int64(-1)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		least, most := int64(1)<<62, int64(0)
		for _, state := range t.states {
			last := int64(0)
			steps, err := steps(state)
			if err != nil {
				return err
			}
			if len(steps) > 0 {
				last = steps[len(steps)-1].Step
			}
			least, most = min(least, last), max(most, last)
		}
		if first < 0 {
			first = most
		}
		if least > first+5 {
			return nil
		}
		for _, p := range slices.Concat(t.coordinators, t.replicas) {
			if status, ended := p.ended(); ended {
				return fmt.Errorf("%s ended with status %d; its last words are in %s.log", p.name, status, p.name)
			}
		}
		if err := wait(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("after two minutes, not all coordinators have the steps that are committed")
}

// leader is the one that said last that it leads.
func (t *trial) leader() (int, error) {
	name, last := "", time.Time{}
	for _, state := range t.states {
		lines, err := readLog(state)
		if err != nil {
			return 0, err
		}
		for _, l := range lines {
			if l.Event == "leads" && l.Time.After(last) {
				name, last = l.Coordinator, l.Time
			}
		}
	}
	i := slices.IndexFunc(t.coordinators, func(p *process) bool { return p.name == name })
	if i < 0 {
		return 0, errors.New("no coordinator has led")
	}
	return i, nil
}

// inflict does the fault to a coordinator. back takes it back.
func (t *trial) inflict(i int) (at time.Time, back func() error, err error) {
	p := t.coordinators[i]
	at = time.Now()
	switch t.how {
	case "kill":
		err := p.cmd.Process.Kill()
		<-p.done
		return at, func() error { return p.start(t.mochi, t.folder) }, err
	case "stop":
		return at, func() error { return p.cmd.Process.Signal(syscall.SIGCONT) }, p.cmd.Process.Signal(syscall.SIGSTOP)
	}
	cut := func(c relay.Conditions) {
		for pair, r := range t.pairs {
			if pair[0] == i || pair[1] == i {
				r.Set(c)
			}
		}
	}
	cut(relay.Conditions{CutUp: true, CutDown: true})
	return at, func() error { cut(relay.Conditions{}); return nil }, nil
}

// errLedNoMore says that another one led when a fault was done to a coordinator.
var errLedNoMore = errors.New("it did not lead any more")

// next waits for a commit under another leader after a fault, and says how long after
// it came, ms.
func (t *trial) next(ctx context.Context, at time.Time, failed int) (float64, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for i, state := range t.states {
			if i == failed {
				continue
			}
			lines, err := readLog(state)
			if err != nil {
				return 0, err
			}
			led, other := false, false
			for _, l := range lines {
				if l.Event == "leads" {
					led = l.Time.After(at)
					other = l.Coordinator != t.coordinators[failed].name
				}
				if other && !led && l.Event == "" && l.StepMs > 0 && l.Time.After(at) {
					return 0, errLedNoMore
				}
				if led && l.Event == "" && l.StepMs > 0 { // one that was recovered was committed before
					return float64(l.Time.Sub(at)) / 1e6, nil
				}
			}
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("no commit within a minute of the fault")
}

// end stops the job as Ctrl-C does, and waits for all processes.
func (t *trial) end(ctx context.Context) (last int64, err error) {
	leader, err := t.leader()
	if err != nil {
		return 0, err
	}
	if err := t.coordinators[leader].cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, err
	}
	limit, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	for i, p := range slices.Concat(t.coordinators, t.replicas) {
		select {
		case <-p.done:
		case <-limit.Done():
			return 0, fmt.Errorf("%s did not end after an orderly stop", p.name)
		}
		want := 0
		if i < len(t.coordinators) {
			want = 130
		}
		if status, _ := p.ended(); status != want {
			t.blame("%s ended with status %d after an orderly stop, not %d", p.name, status, want)
		}
	}
	made, err := steps(t.states[leader])
	if err != nil || len(made) == 0 {
		return 0, fmt.Errorf("no step was committed: %w", err)
	}
	return made[len(made)-1].Step, nil
}

// close ends what still runs.
func (t *trial) close() {
	for _, p := range slices.Concat(t.coordinators, t.replicas) {
		if _, ended := p.ended(); !ended && p.cmd != nil {
			_ = p.cmd.Process.Kill() // it may have ended just now
			<-p.done
		}
	}
	for _, r := range t.relays {
		_ = r.Close()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func latest(state string) string { return filepath.Join(state, "checkpoints", "latest.safetensors") }
