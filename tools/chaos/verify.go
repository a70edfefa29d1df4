package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkLog says what a job's log breaks of the promises: each step is committed
// once, in order, from 1 to last, and nothing was rolled back. It ends at the
// first gap, since all that follows is of the same cause.
func checkLog(lines []line, last int64) []string {
	var broken []string
	step := int64(0)
	for _, l := range lines {
		switch l.Event {
		case "rolled back":
			broken = append(broken, fmt.Sprintf("rolled back from step %d to %d: committed steps ran again", l.From, l.To))
		case "shards lost":
			broken = append(broken, "shards lost")
		}
		if l.Event != "" {
			continue
		}
		if l.Step != step+1 {
			return append(broken, fmt.Sprintf("log.jsonl: step %d follows step %d", l.Step, step))
		}
		step = l.Step
	}
	if step != last {
		broken = append(broken, fmt.Sprintf("log.jsonl ends with step %d, and the last checkpoint is of step %d", step, last))
	}
	return broken
}

// compareSteps says where the states of two runs first differ, by the digests in
// their logs. A digest that nobody lived to report says nothing; that too few of
// them can be compared is an error of its own.
func compareSteps(run, quiet []line) []string {
	want := map[int64]string{}
	for _, l := range commits(quiet) {
		want[l.Step] = l.Digest
	}
	compared, of := 0, 0
	for _, l := range commits(run) {
		of++
		switch w := want[l.Step]; {
		case w == "" || l.Digest == "":
		case w != l.Digest:
			return []string{fmt.Sprintf("step %d: the parameters' digest is %s, and %s in the quiet run", l.Step, l.Digest, w)}
		default:
			compared++
		}
	}
	if compared*2 < of || of == 0 {
		return []string{fmt.Sprintf("only %d of %d steps have digests to compare", compared, of)}
	}
	return nil
}

// verify checks a run that has ended, from its files alone: its log, its samples
// (tools/checksamples) and its last checkpoint, which must be that of the quiet
// run bit for bit. images is the size of the training split.
func (c *cluster) verify(quiet string, last int64, images int) []string {
	lines, err := readLog(filepath.Join(c.state, "log.jsonl"))
	if err != nil {
		return []string{err.Error()}
	}
	broken := checkLog(lines, last)
	undisturbed, err := readLog(filepath.Join(quiet, "log.jsonl"))
	if err != nil {
		return append(broken, err.Error())
	}
	broken = append(broken, compareSteps(lines, undisturbed)...)
	for _, args := range [][]string{
		{"go", "run", "./tools/checksamples", "-samples", fmt.Sprint(images), filepath.Join(c.state, "samples.jsonl")},
		{c.mochi, "diff", latest(c.state), latest(quiet), "--tolerance", "0", "--json"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v: %s", strings.Join(args[:3], " "), err, strings.TrimSpace(string(out))))
		}
	}
	return broken
}

func latest(run string) string { return filepath.Join(run, "checkpoints", "latest.safetensors") }
