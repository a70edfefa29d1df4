package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mochi/cmd/mochi/run"
)

// The tests here run the whole program: this test binary is started again as
// mochi, as many processes as a test needs.
func TestMain(m *testing.M) {
	if os.Getenv("MOCHI_TEST_AS_MAIN") == "1" {
		os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	// Tokens of the coordinators of these tests lie in a folder of their own.
	dir, err := os.MkdirTemp("", "mochi-run-")
	if err == nil {
		err = os.Setenv("XDG_RUNTIME_DIR", dir)
	}
	if err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// tiny is a configuration that a step of takes milliseconds.
var tiny = []string{
	"--arch", "resnet8", "--head", "linear", "--image-size", "12", "--recipe", "cifar",
	"--batch", "16", "--bn-group", "4", "--queue", "50", "--queue-shards", "4", "--dim", "16",
	"--mochi", "12,16,6", "--mochi-warmup", "0", "--lr", "0.05", "--momentum", "0.9",
	"--epochs", "50", "--knn-every", "0", "--sample-log", "--seed", "7",
}

// writeIDX makes a small labelled data set of 12×12 images in dir.
func writeIDX(t *testing.T, dir string, train, test int) string {
	t.Helper()
	for _, split := range []struct {
		name string
		n    int
	}{{"train", train}, {"t10k", test}} {
		images := binary.BigEndian.AppendUint32(nil, 0x803)
		labels := binary.BigEndian.AppendUint32(nil, 0x801)
		for _, v := range []int{split.n, 12, 12} {
			images = binary.BigEndian.AppendUint32(images, uint32(v))
		}
		labels = binary.BigEndian.AppendUint32(labels, uint32(split.n))
		for i := range split.n {
			class := i % 4
			labels = append(labels, byte(class))
			for p := range 144 {
				x, y := p%12, p/12
				on := []bool{x < 6, y < 6, x == y || x == y+1, (x+y)%4 < 2}[class]
				v := (i*37 + p*11) % 60
				if on {
					v += 180
				}
				images = append(images, byte(v))
			}
		}
		write := func(name string, b []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write(split.name+"-images-idx3-ubyte", images)
		write(split.name+"-labels-idx1-ubyte", labels)
	}
	return dir
}

// process is one running mochi.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs bytes.Buffer
	done chan error
}

// start starts mochi; it is killed when the test ends.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(os.Args[0], args...))
}

// startCommand starts mochi by another program.
func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), "MOCHI_TEST_AS_MAIN=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// wait waits for the end and returns the exit status (−1 for a signal).
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(3 * time.Minute):
		p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		p.t.Fatalf("mochi %v did not end:\n%s", p.cmd.Args[1:], p.errs.String())
		return -1
	}
}

func (p *process) mustEnd(status int) {
	p.t.Helper()
	if got := p.wait(); got != status {
		p.t.Fatalf("mochi %s: exit status %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(p.cmd.Args[1:], " "), got, status, p.out.String(), p.errs.String())
	}
}

// mochi runs to the end and must succeed; its stdout is returned.
func mochi(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, args...)
	p.mustEnd(0)
	return p.out.String()
}

// lines reads a JSON-lines file, complete lines only.
func lines[T any](t *testing.T, path string) []T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	var list []T
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var v T
		if err := json.Unmarshal(scan.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v in %s", path, err, scan.Text())
		}
		list = append(list, v)
	}
	return list
}

// steps are the committed steps of a RUN, without events.
func steps(t *testing.T, runDir string) []run.StepLine {
	var list []run.StepLine
	for _, l := range lines[struct {
		run.StepLine
		Event string `json:"event"`
	}](t, filepath.Join(runDir, "log.jsonl")) {
		if l.Event == "" {
			list = append(list, l.StepLine)
		}
	}
	return list
}

// awaitStep polls a RUN until the given step is logged.
func awaitStep(t *testing.T, runDir string, step int64, p *process) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		if l := steps(t, runDir); len(l) > 0 && l[len(l)-1].Step >= step {
			return
		}
		select {
		case <-tick.C:
		case err := <-p.done:
			p.done <- err
			t.Fatalf("mochi ended (%v) before step %d:\n%s", err, step, p.errs.String())
		case <-deadline:
			t.Fatalf("step %d was not reached:\n%s", step, p.errs.String())
		}
	}
}

// checkSamples checks that a sample log has no gap and no repeat, and equals
// another run's where one is given.
func checkSamples(t *testing.T, runDir string, want int64, like string) {
	t.Helper()
	got := lines[run.SampleLine](t, filepath.Join(runDir, "samples.jsonl"))
	if int64(len(got)) != want {
		t.Errorf("%s: %d steps in samples.jsonl, want %d", runDir, len(got), want)
	}
	for i, l := range got {
		if l.Step != int64(i+1) {
			t.Fatalf("%s: line %d of samples.jsonl is step %d", runDir, i+1, l.Step)
		}
	}
	if like == "" {
		return
	}
	for i, l := range lines[run.SampleLine](t, filepath.Join(like, "samples.jsonl")) {
		if i < len(got) && !slices.Equal(l.Samples, got[i].Samples) {
			t.Fatalf("step %d has other samples than in the run %s", i+1, like)
		}
	}
}

// mustEqual checks that two runs ended with the same bits.
func mustEqual(t *testing.T, a, b string) {
	t.Helper()
	var d struct {
		Tensors int     `json:"tensors"`
		MaxRel  float64 `json:"max_rel"`
		Worst   string  `json:"worst"`
	}
	latest := func(dir string) string { return filepath.Join(dir, "checkpoints", "latest.safetensors") }
	out := mochi(t, "diff", latest(a), latest(b), "--json")
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if d.MaxRel != 0 || d.Tensors == 0 {
		t.Errorf("%s and %s differ: max_rel %g in %s (%d tensors)", filepath.Base(a), filepath.Base(b), d.MaxRel, d.Worst, d.Tensors)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// cluster starts a coordinator and n replicas as processes.
func cluster(t *testing.T, data, state string, n int, extra ...string) (*process, []*process) {
	t.Helper()
	addr := freePort(t)
	c := start(t, append(append([]string{"coordinator", "--listen", addr, "--state", state, "--min-replicas", fmt.Sprint(n)}, tiny...), extra...)...)
	var rs []*process
	for i := range n {
		rs = append(rs, joinCluster(t, data, addr, fmt.Sprintf("r%d", i)))
	}
	c.cmd.Args = append(c.cmd.Args, addr) // remembered for address
	return c, rs
}

func (p *process) address() string { return p.cmd.Args[len(p.cmd.Args)-1] }

func joinCluster(t *testing.T, data, addr, name string) *process {
	return start(t, "replica", "--join", "nats://"+addr, "--data", data, "--name", name, "--threads", "1")
}

// With fp32 on the wire the state after a step has the same bits for any
// number of replicas, in one process or in several, and from run to run.
func TestReplicasAgree(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	one := filepath.Join(root, "one")
	train := func(out string, replicas int) {
		mochi(t, append([]string{"train", "--data", data, "--out", out, "--replicas", fmt.Sprint(replicas), "--steps", "20"}, tiny...)...)
	}
	train(one, 1)
	checkSamples(t, one, 20, "")
	for _, n := range []int{2, 4} {
		out := filepath.Join(root, fmt.Sprint(n))
		train(out, n)
		mustEqual(t, one, out)
		checkSamples(t, out, 20, one)
	}
	again := filepath.Join(root, "again")
	train(again, 2)
	mustEqual(t, one, again)

	state := filepath.Join(root, "cluster")
	c, rs := cluster(t, data, state, 3, "--steps", "20")
	c.mustEnd(0)
	for _, r := range rs {
		r.mustEnd(0)
	}
	mustEqual(t, one, state)
	checkSamples(t, state, 20, one)
}

// The lane on which gradients go changes no bit either, whether replicas share a process or
// not; and they do go there.
func TestLanesAgree(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	one := filepath.Join(root, "one")
	train := func(out string, replicas int, lane string) {
		mochi(t, append([]string{"train", "--data", data, "--out", out, "--replicas", fmt.Sprint(replicas), "--ring-lane", lane, "--steps", "20"}, tiny...)...)
	}
	train(one, 1, "auto")
	for _, n := range []int{2, 4} {
		out := filepath.Join(root, fmt.Sprint("nats", n))
		train(out, n, "nats")
		mustEqual(t, one, out)
	}
	for _, lane := range []string{"nats", "direct"} {
		for _, n := range []int{2, 4} {
			state := filepath.Join(root, fmt.Sprint("processes ", lane, n))
			c, rs := cluster(t, data, state, n, "--ring-lane", lane, "--steps", "20")
			c.mustEnd(0)
			for _, r := range rs {
				r.mustEnd(0)
				if said := r.errs.String(); strings.Contains(said, "instead of direct") {
					t.Errorf("lane %s, %d replicas: %s", lane, n, said)
				}
			}
			mustEqual(t, one, state)
			checkSamples(t, state, 20, one)
		}
	}
}

// Ctrl-C and kill -9, then another number of replicas: the run ends as an
// unbroken one does.
func TestStopAndResume(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	args := func(out string, replicas int) []string {
		return append([]string{"train", "--data", data, "--out", out, "--replicas", fmt.Sprint(replicas), "--steps", "30", "--checkpoint-every", "3"}, tiny...)
	}
	whole := filepath.Join(root, "whole")
	mochi(t, args(whole, 1)...)

	stopped := filepath.Join(root, "stopped")
	p := start(t, args(stopped, 2)...)
	awaitStep(t, stopped, 7, p)
	p.cmd.Process.Signal(syscall.SIGINT)
	p.mustEnd(130)
	if n := int64(len(steps(t, stopped))); n < 7 || n == 30 {
		t.Fatalf("stopped after %d steps", n)
	}
	mochi(t, args(stopped, 3)...)
	mustEqual(t, whole, stopped)
	checkSamples(t, stopped, 30, whole)

	killed := filepath.Join(root, "killed")
	p = start(t, args(killed, 3)...)
	awaitStep(t, killed, 7, p)
	p.cmd.Process.Kill()
	p.wait()
	mochi(t, args(killed, 1)...)
	mustEqual(t, whole, killed)
	checkSamples(t, killed, 30, whole)
}

// A member of three is killed in mid-run and another joins: no sample is lost
// or repeated, all digests agree at every commit, and the result is that of a
// run nothing happened to.
func TestKilledMemberAndJoiner(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	whole, state := filepath.Join(root, "whole"), filepath.Join(root, "cluster")
	const n = 120
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", fmt.Sprint(n)}, tiny...)...)

	c, rs := cluster(t, data, state, 3, "--steps", fmt.Sprint(n))
	awaitStep(t, state, 15, c)
	rs[1].cmd.Process.Kill()
	at := int64(len(steps(t, state)))
	awaitStep(t, state, at+10, c)
	joiner := joinCluster(t, data, c.address(), "joiner")
	c.mustEnd(0)
	rs[0].mustEnd(0)
	rs[2].mustEnd(0)
	joiner.mustEnd(0)
	mustEqual(t, whole, state)
	checkSamples(t, state, n, whole)

	worlds := map[int]bool{}
	want := steps(t, whole)
	for i, l := range steps(t, state) {
		worlds[l.World] = true
		if l.Digest != want[i].Digest {
			t.Fatalf("step %d: digest %s, want %s", l.Step, l.Digest, want[i].Digest)
		}
	}
	if !worlds[2] || !worlds[3] {
		t.Errorf("world sizes seen: %v, want 2 and 3", worlds)
	}
}

// SIGTERM lets a replica leave after its step; training goes on without it.
func TestReplicaLeaves(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	whole, state := filepath.Join(root, "whole"), filepath.Join(root, "cluster")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", "40"}, tiny...)...)
	c, rs := cluster(t, data, state, 2, "--steps", "40")
	awaitStep(t, state, 5, c)
	rs[0].cmd.Process.Signal(syscall.SIGTERM)
	rs[0].mustEnd(0)
	c.mustEnd(0)
	rs[1].mustEnd(0)
	mustEqual(t, whole, state)
	checkSamples(t, state, 40, whole)
}

// The coordinator is killed and started again: the replicas wait for it and
// the run goes on from where it was.
func TestCoordinatorRestarts(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	whole, state := filepath.Join(root, "whole"), filepath.Join(root, "cluster")
	mochi(t, append([]string{"train", "--data", data, "--out", whole, "--steps", "60"}, tiny...)...)
	c, rs := cluster(t, data, state, 2, "--steps", "60")
	awaitStep(t, state, 10, c)
	addr := c.address()
	c.cmd.Process.Kill()
	c.wait()
	c = start(t, append([]string{"coordinator", "--listen", addr, "--state", state, "--min-replicas", "2", "--steps", "60"}, tiny...)...)
	c.mustEnd(0)
	for _, r := range rs {
		r.mustEnd(0)
	}
	mustEqual(t, whole, state)
	checkSamples(t, state, 60, whole)
}
