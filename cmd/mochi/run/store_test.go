package run

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/coordinator/quorum"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// stored saves a checkpoint of a step in a new folder, and says what it is.
func stored(t *testing.T, step int64) (path string, c quorum.Checkpoint) {
	t.Helper()
	state := &checkpoint.State{
		Arch: "tiny", Step: step, Cursor: 16 * step, Net: &network.Network{Arch: "tiny", Dim: 1},
		K: 1, Dim: 1, Queue: []float32{float32(step)}, QueueLabels: []int32{-1},
	}
	path, err := checkpoint.SaveStep(t.TempDir(), state, 1)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = describe(path); err != nil {
		t.Fatal(err)
	}
	c.Step, c.Cursor = step, state.Cursor
	return path, c
}

func copyOf(path string, most int64) func(io.Writer) error {
	return func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, io.LimitReader(f, most))
		return err
	}
}

// TestTakeOfAnother: what comes must be whole and what the leader stored; only then it
// is the newest, and an older one that comes late changes nothing.
func TestTakeOfAnother(t *testing.T) {
	s := &Store{Dir: t.TempDir(), keep: 2}
	three, c3 := stored(t, 3)
	five, c5 := stored(t, 5)
	if err := s.Take(c3, copyOf(three, 1<<30)); err != nil || s.Step() != 3 {
		t.Fatalf("step %d, %v", s.Step(), err)
	}
	wrong := c5
	wrong.Digest = strings.Repeat("0", 64)
	for name, try := range map[string]error{
		"cut short":         s.Take(c5, copyOf(five, 100)),
		"another file":      s.Take(c5, copyOf(three, 1<<30)),
		"another digest":    s.Take(wrong, copyOf(five, 1<<30)),
		"the leader failed": s.Take(c5, func(io.Writer) error { return errors.New("gone") }),
	} {
		if try == nil || s.Step() != 3 {
			t.Errorf("%s was taken: step %d", name, s.Step())
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.Dir, ".tmp*")); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %q, %v", left, err)
	}
	if err := s.Take(c5, copyOf(five, 1<<30)); err != nil {
		t.Fatal(err)
	}
	_, c4 := stored(t, 4)
	if err := s.Take(c4, func(io.Writer) error { t.Error("an older one is fetched"); return nil }); err != nil {
		t.Error(err)
	}
	found, err := checkpoint.Latest(s.Dir)
	if err != nil || found.State.Step != 5 {
		t.Fatalf("the latest is %+v, %v", found, err)
	}
	newest, ok, err := s.Newest()
	if err != nil || !ok || newest != (quorum.Checkpoint{Name: newest.Name, Step: 5, Cursor: 80, Size: c5.Size, Digest: c5.Digest}) {
		t.Errorf("%+v, %v, %v", newest, ok, err)
	}
	again := &Store{Dir: t.TempDir()} // with --keep 0 there is latest.safetensors alone
	if err := again.Take(c5, copyOf(five, 1<<30)); err != nil {
		t.Fatal(err)
	}
	if last, ok, _ := again.Latest(); !ok || last.Name != checkpoint.LatestName || last.Step != 5 || last.Cursor != 80 {
		t.Errorf("%+v", last)
	}
}

// TestFolderOfAGroup: what a folder holds decides how a coordinator of a group may open
// it; its folder is no single coordinator's any more.
func TestFolderOfAGroup(t *testing.T) {
	var said bytes.Buffer
	cfg := demo(t)
	dir := filepath.Join(t.TempDir(), "run")
	p := NewProgress(&said, cfg)
	j, err := OpenMember(dir, cfg, nil, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMember(dir, cfg, nil, p); err == nil || !strings.Contains(err.Error(), "another mochi is training") {
		t.Errorf("opened twice: %v", err)
	}
	if j.Before != nil || j.Recorded() != 0 {
		t.Errorf("a new folder holds %+v, step %d", j.Before, j.Recorded())
	}
	if err := j.Outlet.Event(collapse{Step: 1}); err != nil { // nobody leads
		t.Error(err)
	}
	var put []string
	j.Outlet.Lead(j.Copies.Shared(func(file string, line []byte) { put = append(put, string(line)) }))
	if err := j.Outlet.Event(collapse{Step: 2}); err != nil || len(put) != 1 {
		t.Errorf("%q, %v", put, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(Group(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, cfg, Beginning{Resume: "auto"}, p); err == nil || !strings.Contains(err.Error(), "--standby") {
		t.Errorf("a single coordinator opened the folder of a group: %v", err)
	}
	single := filepath.Join(t.TempDir(), "single")
	j, err = Open(single, cfg, Beginning{Resume: "auto"}, p)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	j, err = OpenMember(single, cfg, nil, p)
	if err != nil || j.Before == nil {
		t.Fatalf("what a single coordinator left: %+v, %v", j, err)
	}
	j.Close()
}
