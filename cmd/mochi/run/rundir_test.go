package run

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator"
	"mochi/coordinator/protocol/config"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// A log that is opened again loses the steps that will be run again and a line
// that a crash cut short; a step that is in it is not written twice.
func TestLogIsOpenedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	const old = `{"step":1}` + "\n" + `{"event":"round","step":2}` + "\n" + `{"step":2}` + "\n" + `{"step":3}` + "\n" + `{"step":4`
	for _, c := range []struct {
		cut  int64
		last int64
		want string
	}{
		{-1, 3, "{\"step\":1}\n{\"event\":\"round\",\"step\":2}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n"},
		{1, 1, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n"},
		{0, 0, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n"},
	} {
		if err := os.WriteFile(path, []byte(old), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := openLines(path, c.cut)
		if err != nil || f.last != c.last {
			t.Fatalf("cut %d: last %d, want %d (%v)", c.cut, f.last, c.last, err)
		}
		d := &Dir{log: f}
		for step := int64(1); step <= 4; step++ {
			if err := d.Step(LogFile, step, map[string]int64{"step": step}); err != nil {
				t.Fatal(err)
			}
		}
		f.file.Close()
		if got, _ := os.ReadFile(path); string(got) != c.want {
			t.Errorf("cut %d:\n%swant\n%s", c.cut, got, c.want)
		}
	}
}

// One process trains in a folder.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	lock, err := LockRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockRun(dir); err == nil || !strings.Contains(err.Error(), "another mochi is training in "+dir) {
		t.Errorf("locked twice: %v", err)
	}
	lock.Close()
	if again, err := LockRun(dir); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Replicas name checkpoints; a name is no path.
func TestStoreOpensCheckpointsOnly(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.Dir, "a.safetensors"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Open("a.safetensors"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for _, name := range []string{"../a.safetensors", "/etc/passwd", "config.yaml", ""} {
		if _, err := s.Open(name); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
}

// What a run folder holds is moved to the first free name; an empty one stays.
func TestMoveAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	p := NewProgress(new(strings.Builder), demo(t))
	if err := moveAside(dir, p); err != nil {
		t.Error(err)
	}
	for _, to := range []string{".1", ".2"} {
		if err := os.MkdirAll(filepath.Join(dir, "checkpoints"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := moveAside(dir, p); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir + to + "/checkpoints"); err != nil {
			t.Error(err)
		}
	}
}

// TestLinesOfAFullDisk: what could not be written comes later, in order, once.
func TestLinesOfAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	d, err := openRun(t.TempDir(), -1, false)
	if err != nil {
		t.Fatal(err)
	}
	step := func(n int64) error { return d.Step(LogFile, n, StepLine{Step: n}) }
	if err := step(1); err != nil {
		t.Fatal(err)
	}
	good := d.log.file
	d.log.file = full
	for n := int64(2); n < 5; n++ {
		if step(n) == nil {
			t.Fatal("a full disk took a line")
		}
	}
	d.log.file = good
	if err := step(5); err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(d.path, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	var steps []int64
	for line := range bytes.Lines(content) {
		var at StepLine
		if err := json.Unmarshal(line, &at); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		steps = append(steps, at.Step)
	}
	if !slices.Equal(steps, []int64{1, 2, 3, 4, 5}) {
		t.Fatalf("steps %v", steps)
	}
}

// An upload that is another state than its step led to, or whose step nobody
// closes, is no checkpoint, and leaves nothing in the folder.
func TestStoreKeepsOnlyTheStateThatWasApplied(t *testing.T) {
	state := &checkpoint.State{
		Arch: "tiny", Step: 3, Net: &network.Network{Arch: "tiny", Dim: 1},
		K: 1, Dim: 1, Queue: []float32{1}, QueueLabels: []int32{-1},
	}
	var file bytes.Buffer
	if err := checkpoint.Write(&file, state); err != nil {
		t.Fatal(err)
	}
	limit := checkpoint.SizeAtMost(state.Net, state.K, state.Dim, 0)
	s := &Store{Dir: t.TempDir(), keep: 2, limit: limit}
	save := func(is coordinator.Voted, err error) error {
		_, serr := s.Save(t.Context(), 3, bytes.NewReader(file.Bytes()), func(context.Context) (coordinator.Voted, error) { return is, err })
		return serr
	}
	endless := func() error { // from a stranger, or a replica gone mad
		_, err := s.Save(t.Context(), 3, io.MultiReader(bytes.NewReader(file.Bytes()), zeros{}), nil)
		return err
	}
	for _, err := range []error{
		endless(),
		save(coordinator.Voted{Digest: "another"}, nil),
		save(coordinator.Voted{Shards: []string{"another"}}, nil),
		save(coordinator.Voted{}, context.Canceled),
	} {
		if err == nil {
			t.Error("it was stored")
		}
		if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
			t.Errorf("left in the folder: %v, %v", left, err)
		}
	}
	is := checkpoint.StateDigest(checkpoint.Digests(nil, nil, nil, nil, nil))
	if err := save(coordinator.Voted{Digest: is}, nil); err != nil {
		t.Error(err)
	}
}

// A start with the settings of the last one needs no room on the disk: what is there
// stays as it is, but for a line that was cut short.
func TestStartWritesNothingThatIsThere(t *testing.T) {
	path, cfg := filepath.Join(t.TempDir(), "run"), config.Default()
	cfg.SampleLog = true
	open := func() {
		t.Helper()
		j, err := Open(path, cfg, Beginning{Resume: "auto"}, NewProgress(io.Discard, cfg))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Dir.Step(LogFile, 1, map[string]int64{"step": 1}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open()
	torn, err := os.OpenFile(filepath.Join(path, LogFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"step":2,"cut":`); err != nil {
		t.Fatal(err)
	}
	torn.Close()
	names := []string{configFile, LogFile, SamplesFile}
	before := map[string]os.FileInfo{}
	for _, name := range names {
		if before[name], err = os.Stat(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	open()
	for _, name := range names {
		after, err := os.Stat(filepath.Join(path, name))
		if err != nil || !os.SameFile(before[name], after) {
			t.Errorf("%s was written anew (%v)", name, err)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(path, LogFile)); string(got) != "{\"step\":1}\n" {
		t.Errorf("log.jsonl is %q", got)
	}
}
