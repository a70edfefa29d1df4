package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func read1(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fullDisk is a file on a disk with room for so many more bytes.
type fullDisk struct {
	file
	room int
}

func (f *fullDisk) Write(b []byte) (int, error) {
	n, err := f.file.Write(b[:min(f.room, len(b))])
	f.room -= n
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	return n, err
}

// failing answers Sync or Close with an error, after doing it.
type failing struct {
	file
	sync, close error
}

func (f failing) Sync() error  { return errors.Join(f.file.Sync(), f.sync) }
func (f failing) Close() error { return errors.Join(f.file.Close(), f.close) }

func TestFailedSaveLeavesThePreviousCheckpoint(t *testing.T) {
	size := len(encode(t, tinyState(2)))
	disk := errors.New("input/output error")
	faults := map[string]struct {
		cause error
		spoil func(*files)
	}{
		"sync": {disk, func(f *files) {
			create := f.create
			f.create = func(p string) (file, error) { x, err := create(p); return failing{x, disk, nil}, err }
		}},
		"close": {disk, func(f *files) {
			create := f.create
			f.create = func(p string) (file, error) { x, err := create(p); return failing{x, nil, disk}, err }
		}},
		"create": {syscall.EACCES, func(f *files) {
			f.create = func(string) (file, error) { return nil, syscall.EACCES }
		}},
		"rename": {disk, func(f *files) { f.rename = func(string, string) error { return disk } }},
	}
	for _, room := range []int{0, 1, 8, 100, size / 2, size - 1} {
		faults[fmt.Sprintf("disk full after %d bytes", room)] = struct {
			cause error
			spoil func(*files)
		}{syscall.ENOSPC, func(f *files) {
			create := f.create
			f.create = func(p string) (file, error) { x, err := create(p); return &fullDisk{x, room}, err }
		}}
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := SaveStep(dir, tinyState(1), 3); err != nil {
				t.Fatal(err)
			}
			before := read1(t, filepath.Join(dir, LatestName))
			broken := osFiles()
			fault.spoil(&broken)
			_, err := saveStep(broken, dir, tinyState(2), 3)
			if !errors.Is(err, fault.cause) || !strings.Contains(err.Error(), filepath.Join(dir, "step-00000002.safetensors")) {
				t.Errorf("got %v", err)
			}
			if got := names(t, dir); !slices.Equal(got, []string{LatestName, "step-00000001.safetensors"}) {
				t.Errorf("the folder holds %q", got)
			}
			if !bytes.Equal(read1(t, filepath.Join(dir, LatestName)), before) {
				t.Error("the previous checkpoint changed")
			}
			if f, err := Latest(dir); err != nil || f.State.Step != 1 || f.Skipped != nil {
				t.Errorf("latest: %+v, %v", f, err)
			}
			// With room again the same save succeeds.
			if _, err := SaveStep(dir, tinyState(2), 3); err != nil {
				t.Error(err)
			}
		})
	}
}

// The kernel's own full disk.
func TestWriteToAFullDevice(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := Write(full, tinyState(1)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

func TestSaveReplacesAndFollowsUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for _, step := range []int64{1, 2} {
		if err := Save(path, tinyState(step)); err != nil {
			t.Fatal(err)
		}
		if s, err := Load(path); err != nil || s.Step != step {
			t.Errorf("step %d: %+v, %v", step, s, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0o044&^umask() {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := Save(filepath.Join(path, "y"), tinyState(1)); err == nil {
		t.Error("saved below a file")
	}
}

func umask() fs.FileMode {
	old := syscall.Umask(0)
	syscall.Umask(old)
	return fs.FileMode(old)
}

func TestSaveStepKeepsTheNewest(t *testing.T) {
	for _, c := range []struct {
		keep int
		want []string
	}{
		{0, []string{LatestName}},
		{1, []string{LatestName, "step-00000040.safetensors"}},
		{3, []string{LatestName, "step-00000020.safetensors", "step-00000030.safetensors", "step-00000040.safetensors"}},
		{9, []string{LatestName, "step-00000010.safetensors", "step-00000020.safetensors", "step-00000030.safetensors", "step-00000040.safetensors"}},
	} {
		dir := filepath.Join(t.TempDir(), "run", "checkpoints")
		for step := int64(10); step <= 40; step += 10 {
			path, err := SaveStep(dir, tinyState(step), c.keep)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{path, filepath.Join(dir, LatestName)} {
				if s, err := Load(p); err != nil || s.Step != step {
					t.Errorf("keep %d, step %d: %s: %v", c.keep, step, p, err)
				}
			}
		}
		if got := names(t, dir); !slices.Equal(got, c.want) {
			t.Errorf("keep %d: %q", c.keep, got)
		}
	}
}

func TestSaveStepCleansUpAfterACrashAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tmp-0123-step-00000001.safetensors", "mine.safetensors", "step-1.safetensors", "step-00000001.safetensors.bak", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Left by a history that was abandoned by resuming from step 1.
	if _, err := SaveStep(dir, tinyState(9), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveStep(dir, tinyState(2), 1); err != nil {
		t.Fatal(err)
	}
	want := []string{LatestName, "mine.safetensors", "notes.txt", "step-00000001.safetensors.bak", "step-00000002.safetensors", "step-00000009.safetensors", "step-1.safetensors"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q", got)
	}
	if f, err := Latest(dir); err != nil || f.State.Step != 2 {
		t.Errorf("latest: %+v, %v", f, err)
	}
}

func TestSaveStepWithoutHardLinks(t *testing.T) {
	dir := t.TempDir()
	fsys := osFiles()
	fsys.link = func(string, string) error { return syscall.EPERM }
	for _, step := range []int64{1, 2} {
		if _, err := saveStep(fsys, dir, tinyState(step), 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{LatestName, "step-00000002.safetensors"}) {
		t.Errorf("the folder holds %q", got)
	}
	if f, err := Latest(dir); err != nil || f.State.Step != 2 {
		t.Errorf("latest: %+v, %v", f, err)
	}
}

func TestLatestFallsBack(t *testing.T) {
	dir := t.TempDir()
	if _, err := Latest(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Latest(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	for _, step := range []int64{1, 2, 3} {
		if _, err := SaveStep(dir, tinyState(step), 3); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(name string) {
		path := filepath.Join(dir, name)
		b := read1(t, path)
		b[len(b)-1] ^= 1
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	damage("step-00000003.safetensors") // latest too: it is the same file
	f, err := Latest(dir)
	if err != nil || f.State.Step != 2 || f.Path != filepath.Join(dir, "step-00000002.safetensors") {
		t.Fatalf("%+v, %v", f, err)
	}
	if len(f.Skipped) != 2 || !strings.Contains(f.Skipped[0].Error(), LatestName) || !errors.Is(f.Skipped[1], ErrInvalid) {
		t.Errorf("skipped %v", f.Skipped)
	}
	if err := os.Remove(filepath.Join(dir, LatestName)); err != nil {
		t.Fatal(err)
	}
	damage("step-00000002.safetensors")
	if f, err := Latest(dir); err != nil || f.State.Step != 1 || len(f.Skipped) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	damage("step-00000001.safetensors")
	if _, err := Latest(dir); !errors.Is(err, ErrInvalid) || errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), "digest mismatch") != 3 {
		t.Errorf("all damaged: %v", err)
	}
}

// TestTakeStep: a file from elsewhere is a checkpoint like one that was saved; one that
// did not come whole leaves nothing.
func TestTakeStep(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	for step := int64(1); step <= 3; step++ {
		s := tinyState(step)
		path, err := SaveStep(from, s, 9)
		if err != nil {
			t.Fatal(err)
		}
		cut := errors.New("the connection was closed")
		if _, err := TakeStep(dir, step, 2, func(w io.Writer) error {
			_, err := w.Write(read1(t, path)[:100])
			return errors.Join(err, cut)
		}); !errors.Is(err, cut) {
			t.Fatalf("a part of a file was taken: %v", err)
		}
		if _, err := TakeStep(dir, step, 2, func(w io.Writer) error { return copyFile(w, path) }); err != nil {
			t.Fatal(err)
		}
		if found, err := Latest(dir); err != nil || found.State.Step != step {
			t.Fatalf("the latest is %+v, %v", found, err)
		}
	}
	if got, want := names(t, dir), []string{LatestName, StepName(2), StepName(3)}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
