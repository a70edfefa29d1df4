package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standing is a group of three coordinators with replicas, to which a test does
// something bad.
type standing struct {
	*testing.T
	data         string
	members      string // --standby
	keys         string // --keys
	nats, creds  string // instead of it: --nats, --nats-creds
	join         string
	settings     []string
	names        []string
	states       map[string]string
	coordinators map[string]*process
	replicas     []*process
}

// newStanding makes the places for a group, and starts nothing.
func newStanding(t *testing.T, data string, settings ...string) *standing {
	t.Helper()
	s := &standing{
		T: t, data: data, settings: append(slices.Clone(tiny), settings...), names: []string{"a", "b", "c"},
		states: map[string]string{}, coordinators: map[string]*process{},
	}
	root := t.TempDir()
	var members, join []string
	for i, addr := range freePorts(t, 2*len(s.names)) {
		if i%2 == 0 {
			join = append(join, addr)
			continue
		}
		name := s.names[i/2]
		s.states[name] = filepath.Join(root, name)
		members = append(members, fmt.Sprintf("%s=%s/%s", name, join[i/2], addr[strings.LastIndex(addr, ":")+1:]))
	}
	s.keys = filepath.Join(root, "keys")
	mochi(t, "token", "keys", s.keys)
	s.members, s.join = strings.Join(members, ","), strings.Join(join, ",")
	return s
}

// freePorts are addresses that nobody listens on, each another one.
func freePorts(t *testing.T, n int) (free []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		free = append(free, l.Addr().String())
	}
	return free
}

// coordinator starts one of them.
func (s *standing) coordinator(name string, extra ...string) *process {
	s.Helper()
	args := append([]string{"coordinator", "--standby", s.members, "--name", name, "--state", s.states[name]}, s.settings...)
	if s.nats != "" {
		args[1], args[2] = "--nats", s.nats
		args = append(args, s.credentials()...)
	} else {
		args = append(args, "--keys", s.keys)
	}
	p := start(s.T, append(args, extra...)...)
	s.coordinators[name] = p
	return p
}

// all starts all coordinators, and replicas.
func (s *standing) all(replicas int) {
	s.Helper()
	for _, name := range s.names {
		s.coordinator(name)
	}
	for i := range replicas {
		args := []string{"replica", "--join", s.join, "--data", s.data, "--name", fmt.Sprintf("r%d", i), "--threads", "1"}
		s.replicas = append(s.replicas, start(s.T, append(args, s.credentials()...)...))
	}
}

func (s *standing) credentials() []string {
	if s.creds == "" {
		return nil
	}
	return []string{"--nats-creds", s.creds}
}

// ledLine is an event "leads".
type ledLine struct {
	Event       string    `json:"event"`
	Coordinator string    `json:"coordinator"`
	Time        time.Time `json:"time"`
}

// leads are the coordinators that led so far, as any of them has it on record.
func (s *standing) leads() (list []ledLine) {
	s.Helper()
	for _, state := range s.states {
		var own []ledLine
		for _, l := range lines[ledLine](s.T, filepath.Join(state, "log.jsonl")) {
			if l.Event == "leads" {
				own = append(own, l)
			}
		}
		if len(own) > len(list) {
			list = own
		}
	}
	return list
}

// leader is who led last.
func (s *standing) leader() string {
	s.Helper()
	list := s.leads()
	if len(list) == 0 {
		s.Fatalf("nobody leads:\n%s", s.said())
	}
	return list[len(list)-1].Coordinator
}

// last is the last step that any has on record.
func (s *standing) last() (step int64) {
	for _, state := range s.states {
		if l := steps(s.T, state); len(l) > 0 {
			step = max(step, l[len(l)-1].Step)
		}
	}
	return step
}

// await waits until something has become so.
func (s *standing) await(what string, found func() bool) {
	s.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(2 * time.Minute); !found(); {
		select {
		case <-tick.C:
		case <-deadline:
			s.Fatalf("no %s:\n%s", what, s.said())
		}
	}
}

// said is what the coordinators told people.
func (s *standing) said() string {
	var all strings.Builder
	for name, p := range s.coordinators {
		fmt.Fprintf(&all, "%s:\n%s\n", name, p.errs.String())
	}
	return all.String()
}

// mustEndLike checks that nothing of what happened can be seen: in every coordinator's
// folder there is what an undisturbed run leaves, and all have the same lines.
func (s *standing) mustEndLike(whole string, n int) {
	s.Helper()
	want := steps(s.T, whole)
	first, err := os.ReadFile(filepath.Join(s.states[s.names[0]], "log.jsonl"))
	if err != nil {
		s.Fatal(err)
	}
	for name, state := range s.states {
		mustEqual(s.T, whole, state)
		checkSamples(s.T, state, int64(n), whole)
		got := steps(s.T, state)
		if len(got) != n || len(want) != n {
			s.Fatalf("%s: %d steps in log.jsonl, %d undisturbed, want %d", name, len(got), len(want), n)
		}
		for i, l := range got {
			if l.Step != want[i].Step || l.Digest != want[i].Digest && l.Digest != "" {
				s.Fatalf("%s: line %d: step %d with digest %q, want step %d with %q", name, i+1, l.Step, l.Digest, want[i].Step, want[i].Digest)
			}
		}
		if own, err := os.ReadFile(filepath.Join(state, "log.jsonl")); err != nil || !bytes.Equal(own, first) {
			s.Errorf("log.jsonl of %s is another than that of %s (%v)", name, s.names[0], err)
		}
	}
	if s.Failed() {
		s.Log(s.said())
	}
}

// The coordinator that leads is killed twice, at moments drawn at random: another one
// goes on, no replica has to be started again, and nothing of it can be seen in the
// result. What was killed is started again and has all that the others have.
func TestCoordinatorsFailOver(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 400
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	s := newStanding(t, data, "--steps", fmt.Sprint(n), "--checkpoint-every", "20", "--min-replicas", "2")
	s.all(2)
	for range 2 {
		at := s.last() + 10 + rand.Int64N(40)
		s.await(fmt.Sprintf("step %d", at), func() bool { return s.last() >= at })
		leader := s.leader()
		s.coordinators[leader].kill()
		s.await("another leader", func() bool { return s.leader() != leader })
		s.coordinator(leader)
	}
	for name, c := range s.coordinators {
		if status := c.wait(); status != 0 {
			t.Errorf("%s ended with %d:\n%s", name, status, c.errs.String())
		}
	}
	for _, r := range s.replicas {
		r.mustEnd(0)
	}
	s.mustEndLike(whole, n)
}

// SIGTERM hands over, and the process ends with 0; Ctrl-C at the one that leads ends the
// job for all; started again, with the one that was away, it goes on to the end.
func TestCoordinatorsAreTold(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 300
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	s := newStanding(t, data, "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	s.all(1)
	s.await("step 20", func() bool { return s.last() >= 20 })
	away := s.leader()
	s.coordinators[away].signal(syscall.SIGTERM)
	s.coordinators[away].mustEnd(0)
	s.await("another leader", func() bool { return s.leader() != away })
	at := s.last() + 10
	s.await("a step under it", func() bool { return s.last() >= at })
	s.stopsAndGoesOn(away, whole, n)
}

// stopsAndGoesOn presses Ctrl-C at the one that leads, which ends the job for all but the
// one that is away; all are started again, and it goes on to the end.
func (s *standing) stopsAndGoesOn(away, whole string, n int) {
	s.Helper()
	s.coordinators[s.leader()].signal(syscall.SIGINT)
	for name, c := range s.coordinators {
		if name != away {
			c.mustEnd(130)
		}
	}
	s.replicas[0].mustEnd(0)
	if s.last() >= int64(n) {
		s.Fatal("the job was over before it was stopped")
	}
	s.replicas = nil
	s.all(1)
	for _, c := range s.coordinators {
		c.mustEnd(0)
	}
	s.replicas[0].mustEnd(0)
	s.mustEndLike(whole, n)
}

// What a coordinator of a group is not started with is told with status 2.
func TestOtherSettingsInAGroup(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	s := newStanding(t, data, "--steps", "100000")
	s.all(0)
	// Until one leads, the settings of any of them may become those of the job.
	s.await("a leader", func() bool { return len(s.leads()) > 0 })
	name := s.names[0]
	if name == s.leader() {
		name = s.names[1]
	}
	s.coordinators[name].kill()
	c := s.coordinator(name, "--lr", "0.5")
	c.mustEnd(2)
	if text := c.errs.String(); !strings.Contains(text, "lr: 0.05 ≠ 0.5") {
		t.Errorf("it does not say what differs:\n%s", text)
	}
}

// A run of one coordinator becomes one of three: the one that holds it leads first, and
// the others get all of it.
func TestGroupGoesOnWithARun(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	const n = 120
	whole := filepath.Join(t.TempDir(), "whole")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)
	s := newStanding(t, data, "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	alone, rs := cluster(t, data, s.states["b"], 1, "--steps", fmt.Sprint(n), "--checkpoint-every", "20")
	awaitStep(t, s.states["b"], 50, alone)
	alone.kill()
	rs[0].kill()
	s.all(1)
	for _, c := range s.coordinators {
		c.mustEnd(0)
	}
	s.replicas[0].mustEnd(0)
	if first := s.leads()[0]; first.Coordinator != "b" {
		t.Errorf("%s led first", first.Coordinator)
	}
	s.mustEndLike(whole, n)
	p := start(t, append([]string{"coordinator", "--listen", freePort(t), "--state", s.states["b"], "--steps", fmt.Sprint(n)}, tiny...)...)
	p.mustEnd(2)
	if !strings.Contains(p.errs.String(), "--standby") {
		t.Errorf("alone on a group's folder: %s", p.errs.String())
	}
}
