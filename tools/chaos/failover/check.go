package failover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// line is one of log.jsonl or samples.jsonl.
type line struct {
	Event       string    `json:"event"`
	Coordinator string    `json:"coordinator"` // of "leads"
	Step        int64     `json:"step"`
	StepMs      float64   `json:"step_ms"`
	Digest      string    `json:"digest"`
	Time        time.Time `json:"time"`
	Samples     []int     `json:"samples"`
}

// readLines reads the whole lines of a file; none when it is not there yet.
func readLines(path string) (lines []line, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	n := 0
	for one := range bytes.Lines(text[:bytes.LastIndexByte(text, '\n')+1]) {
		n++
		var l line
		if err := json.Unmarshal(one, &l); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func readLog(state string) ([]line, error) { return readLines(filepath.Join(state, "log.jsonl")) }

// steps are the committed steps in a log.
func steps(state string) ([]line, error) {
	lines, err := readLog(state)
	return slices.DeleteFunc(lines, func(l line) bool { return l.Event != "" }), err
}

// check compares what took how long with the limits, and each coordinator's folder with
// an undisturbed run.
func (t *trial) check(ctx context.Context, r *report) error {
	made, err := steps(t.states[0])
	if err != nil {
		return err
	}
	var took []float64
	for _, l := range made {
		if l.StepMs > 0 {
			took = append(took, l.StepMs)
		}
	}
	slices.Sort(took)
	if len(took) > 0 {
		r.StepMs = took[len(took)/2]
	}
	all := slices.Sorted(slices.Values(r.AllMs))
	r.Times, r.MedianMs, r.WorstMs = len(all), all[len(all)/2], all[len(all)-1]
	if limit := float64(medianLimit.Milliseconds()) + r.StepMs; r.MedianMs > limit {
		t.blame("the median failover took %.0f ms, more than %.0f", r.MedianMs, limit)
	}
	if limit := float64(worstLimit.Milliseconds()); r.WorstMs > limit {
		t.blame("the slowest failover took %.0f ms, more than %.0f", r.WorstMs, limit)
	}
	quiet := filepath.Join(t.folder, "quiet")
	t.note("an undisturbed run of %d steps", r.Steps)
	args := append([]string{"train", "--data", t.data, "--out", quiet, "--replicas", "1", "--threads", "1", "--sample-log", "--steps", fmt.Sprint(r.Steps)}, t.job.Settings...)
	if out, err := exec.CommandContext(ctx, t.mochi, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("the undisturbed run: %w: %s", err, out[max(0, len(out)-1000):])
	}
	for i, state := range t.states {
		for _, b := range t.compare(ctx, state, quiet, r.Steps) {
			t.blame("coordinator %s: %s", t.coordinators[i].name, b)
		}
	}
	return nil
}

// compare says how the folder of a coordinator differs from what it must be.
func (t *trial) compare(ctx context.Context, state, quiet string, last int64) (broken []string) {
	for _, file := range []string{"log.jsonl", "samples.jsonl"} {
		first, err := os.ReadFile(filepath.Join(t.states[0], file))
		if err != nil {
			return append(broken, err.Error())
		}
		if own, err := os.ReadFile(filepath.Join(state, file)); err != nil || !bytes.Equal(own, first) {
			broken = append(broken, fmt.Sprintf("its %s is another than that of %s (%v)", file, t.coordinators[0].name, err))
		}
		got, err := readLines(filepath.Join(state, file))
		want, err2 := readLines(filepath.Join(quiet, file))
		if err := errors.Join(err, err2); err != nil {
			return append(broken, err.Error())
		}
		for _, b := range once(got, want, last) {
			broken = append(broken, file+": "+b)
		}
	}
	out, err := exec.CommandContext(ctx, t.mochi, "diff", latest(state), latest(quiet), "--tolerance", "0", "--json").CombinedOutput()
	if err != nil {
		broken = append(broken, fmt.Sprintf("the last checkpoint is not that of the undisturbed run: %v: %s", err, strings.TrimSpace(string(out))))
	}
	return broken
}

// once says where lines have not every step once and in order, as an undisturbed run
// has it.
func once(got, want []line, last int64) []string {
	isEvent := func(l line) bool { return l.Event != "" }
	for _, l := range got {
		if l.Event == "rolled back" || l.Event == "shards lost" {
			return []string{l.Event}
		}
	}
	got, want = slices.DeleteFunc(got, isEvent), slices.DeleteFunc(want, isEvent)
	if int64(len(got)) != last || int64(len(want)) != last {
		return []string{fmt.Sprintf("%d steps, and %d in the undisturbed run; there were %d", len(got), len(want), last)}
	}
	compared := 0
	for i, l := range got {
		w := want[i]
		switch {
		case l.Step != int64(i+1):
			return []string{fmt.Sprintf("step %d stands in the place of step %d", l.Step, i+1)}
		case l.Digest != "" && w.Digest != "" && l.Digest != w.Digest:
			return []string{fmt.Sprintf("step %d: the digest is %s, and %s in the undisturbed run", l.Step, l.Digest, w.Digest)}
		case !slices.Equal(l.Samples, w.Samples):
			return []string{fmt.Sprintf("step %d has other samples than in the undisturbed run", l.Step)}
		}
		if l.Digest != "" || l.Samples != nil {
			compared++
		}
	}
	if compared*2 < len(got) {
		return []string{fmt.Sprintf("only %d of %d steps could be compared", compared, len(got))}
	}
	return nil
}
