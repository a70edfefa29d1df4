package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mochi/coordinator/protocol"
)

// breakSteps is the length of the jobs that the tests break.
const breakSteps = 60

// broken is a cluster to which a test does something bad.
type broken struct {
	*testing.T
	data, state string
	coordinator *process
	replicas    []*process
}

// unbroken trains on one replica, undisturbed: what every cluster must end
// like.
func unbroken(t *testing.T, data string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "unbroken")
	mochi(t, append([]string{"train", "--data", data, "--out", out, "--steps", fmt.Sprint(breakSteps)}, tiny...)...)
	return out
}

// breakable starts a coordinator and n replicas.
func breakable(t *testing.T, data string, n int, extra ...string) *broken {
	t.Helper()
	b := &broken{T: t, data: data, state: filepath.Join(t.TempDir(), "cluster")}
	b.coordinator, b.replicas = cluster(t, data, b.state, n, append([]string{"--steps", fmt.Sprint(breakSteps)}, extra...)...)
	return b
}

// join starts one more replica.
func (b *broken) join(name string) *process {
	b.Helper()
	r := joinCluster(b.T, b.data, b.coordinator.address(), name)
	b.replicas = append(b.replicas, r)
	return r
}

// restart starts the coordinator again at the same address.
func (b *broken) restart(extra ...string) {
	b.Helper()
	b.restartAt(b.coordinator.address(), extra...)
}

// restartAt starts a coordinator on what the run's folder holds.
func (b *broken) restartAt(addr string, extra ...string) {
	b.Helper()
	args := append([]string{"coordinator", "--listen", addr, "--state", b.state, "--steps", fmt.Sprint(breakSteps)}, tiny...)
	b.coordinator = start(b.T, append(args, extra...)...)
	b.coordinator.cmd.Args = append(b.coordinator.cmd.Args, addr)
}

// byName is the first replica of that name.
func (b *broken) byName(name string) *process {
	b.Helper()
	for _, r := range b.replicas {
		if slices.Contains(r.cmd.Args, name) {
			return r
		}
	}
	b.Fatalf("no replica %s", name)
	return nil
}

func (p *process) kill() {
	p.t.Helper()
	p.cmd.Process.Kill()
	p.wait()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// eventLine is a line of log.jsonl that is not a step.
type eventLine struct {
	Event   string `json:"event"`
	Replica string `json:"replica"`
	Reason  string `json:"reason"`
	Field   string `json:"field"`
	Error   string `json:"error"`
	Members string `json:"members"`
	Step    int64  `json:"step"`
}

// events are the lines of log.jsonl with the given name.
func (b *broken) events(name string) []eventLine {
	b.Helper()
	var list []eventLine
	for _, e := range lines[eventLine](b.T, filepath.Join(b.state, "log.jsonl")) {
		if e.Event == name {
			list = append(list, e)
		}
	}
	return list
}

// inState is how many replicas are, as mochi status has it.
func (b *broken) inState(state string) (n int) {
	b.Helper()
	var s protocol.Status
	out := mochi(b.T, "status", "--join", "nats://"+b.coordinator.address(), "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		b.Fatal(err)
	}
	for _, r := range s.Replicas {
		if r.State == state {
			n++
		}
	}
	return n
}

// await polls the run until the coordinator has written what is waited for.
func (b *broken) await(what string, found func() bool) {
	b.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !found() {
		select {
		case <-tick.C:
		case err := <-b.coordinator.done:
			b.coordinator.done <- err
			if found() {
				return
			}
			b.Fatalf("the coordinator ended (%v) before %s:\n%s", err, what, b.coordinator.errs.String())
		case <-deadline:
			log, _ := os.ReadFile(filepath.Join(b.state, "log.jsonl"))
			b.Fatalf("no %s:\n%s\nlog:\n%s", what, b.coordinator.errs.String(), log)
		}
	}
}

func (b *broken) awaitStep(step int64) { b.Helper(); awaitStep(b.T, b.state, step, b.coordinator) }

// last is the last step that was committed so far.
func (b *broken) last() int64 {
	b.Helper()
	if l := steps(b.T, b.state); len(l) > 0 {
		return l[len(l)-1].Step
	}
	return 0
}

// awaitEvents waits for the nth event of a name whose text contains part.
func (b *broken) awaitEvents(name, part string, n int) eventLine {
	b.Helper()
	var e eventLine
	b.await(fmt.Sprintf("event %q (%s)", name, part), func() bool {
		seen := 0
		for _, e = range b.events(name) {
			if strings.Contains(e.Reason+e.Error+e.Members+e.Replica, part) {
				if seen++; seen == n {
					return true
				}
			}
		}
		return false
	})
	return e
}

// mustEndLike waits for the end and checks that nothing of what happened can
// be seen in the result: samples, digest after every step, final state.
func (b *broken) mustEndLike(whole string, alive ...*process) {
	b.Helper()
	b.coordinator.mustEnd(0)
	for _, r := range alive {
		r.mustEnd(0)
	}
	mustEqual(b.T, whole, b.state)
	checkSamples(b.T, b.state, breakSteps, whole)
	want := steps(b.T, whole)
	got := steps(b.T, b.state)
	if len(got) != len(want) {
		b.Fatalf("%d steps in log.jsonl, want %d", len(got), len(want))
	}
	for i, l := range got {
		// A step that only the log of commits knows has no digest.
		if l.Step != want[i].Step || l.Digest != want[i].Digest && l.Digest != "" {
			b.Fatalf("line %d: step %d with digest %q, want step %d with %q", i+1, l.Step, l.Digest, want[i].Step, want[i].Digest)
		}
	}
	if n := b.events("digest mismatch"); len(n) > 0 {
		b.Errorf("digests differed: %+v", n)
	}
	if b.Failed() {
		b.Logf("coordinator:\n%s", b.coordinator.errs.String())
	}
}
