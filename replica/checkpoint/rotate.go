package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// LatestName is the file in a checkpoint folder that holds the last state saved.
const LatestName = "latest.safetensors"

// StepName is the file of one step: step-00000042.safetensors.
func StepName(step int64) string { return fmt.Sprintf("step-%08d%s", step, extension) }

// SaveStep saves the state in a checkpoint folder (made when missing) under
// its StepName and as LatestName, which is a hard link to it where the file
// system has them. Then it removes older step files beyond the keep newest,
// and temporary files that a crash left; with keep 0 only LatestName stays.
// Step files of later steps, which resuming from an older checkpoint leaves
// behind, are not touched. It returns the path of a file with the new state.
//
// One SaveStep at a time may work on a folder.
func SaveStep(dir string, s *State, keep int) (string, error) {
	return saveStep(osFiles(), dir, s, keep)
}

// TakeStep is SaveStep of a state that is a file already, somewhere else: copy writes
// its bytes, and fails unless they are all there and right.
func TakeStep(dir string, step int64, keep int, copy func(w io.Writer) error) (string, error) {
	return storeStep(osFiles(), dir, step, keep, copy)
}

// ReceiveStep is SaveStep of a state that arrives in r, of at most limit. It
// goes to a file as it comes, however long that takes, and is read there, once, to be
// looked at by check before it is stored.
func ReceiveStep(dir string, step int64, keep int, r io.Reader, limit Bounds, check func(s *State) error) (string, error) {
	return TakeStep(dir, step, keep, func(w io.Writer) error {
		n, err := io.Copy(w, io.LimitReader(r, limit.File+1))
		if err != nil {
			return err
		}
		if n > limit.File {
			return invalid("it is longer than %d bytes, which no checkpoint of this job is", limit.File)
		}
		f, can := w.(io.ReadSeeker)
		if !can {
			return fmt.Errorf("%w: what was written cannot be read again", errors.ErrUnsupported)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		s, err := read(f, n, limit)
		if err != nil {
			return err
		}
		if s.Step != step {
			return invalid("the state is that of step %d, not %d", s.Step, step)
		}
		return check(s)
	})
}

func saveStep(fsys files, dir string, s *State, keep int) (string, error) {
	return storeStep(fsys, dir, s.Step, keep, s.writeTo)
}

func storeStep(fsys files, dir string, step int64, keep int, write func(w io.Writer) error) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("save checkpoint: %w", err)
	}
	if err := sweep(fsys, dir); err != nil {
		return "", err
	}
	path, latest := filepath.Join(dir, StepName(step)), filepath.Join(dir, LatestName)
	if err := save(fsys, path, write); err != nil {
		return "", err
	}
	if err := link(fsys, path, latest); err != nil {
		if err := save(fsys, latest, func(w io.Writer) error { return copyFile(w, path) }); err != nil {
			return "", err
		}
	}
	steps, err := stepFiles(dir)
	if err != nil {
		return "", fmt.Errorf("remove old checkpoints: %w", err)
	}
	kept := 0
	for _, f := range steps {
		if f.step > step {
			continue
		}
		if kept++; kept <= keep {
			continue
		}
		if err := fsys.remove(f.path); err != nil {
			return "", fmt.Errorf("remove old checkpoints: %w", err)
		}
	}
	if keep == 0 {
		path = latest
	}
	return path, fsys.syncDir(dir)
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// link makes latest another name of path, atomically.
func link(fsys files, path, latest string) error {
	temp := tempName(latest)
	if err := fsys.link(path, temp); err != nil {
		return err
	}
	if err := fsys.rename(temp, latest); err != nil {
		return errors.Join(err, fsys.remove(temp))
	}
	return nil
}

// sweep removes temporary files of earlier, crashed saves.
func sweep(fsys files, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) && strings.HasSuffix(e.Name(), extension) {
			if err := fsys.remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove a temporary file: %w", err)
			}
		}
	}
	return nil
}

// stepFile is one step-XXXXXXXX.safetensors.
type stepFile struct {
	path string
	step int64
}

// stepFiles lists the step files of a folder, the newest step first.
func stepFiles(dir string) ([]stepFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []stepFile
	for _, e := range entries {
		digits, isStep := strings.CutPrefix(strings.TrimSuffix(e.Name(), extension), "step-")
		step, err := strconv.ParseInt(digits, 10, 64)
		if isStep && err == nil && e.Name() == StepName(step) {
			list = append(list, stepFile{filepath.Join(dir, e.Name()), step})
		}
	}
	slices.SortFunc(list, func(a, b stepFile) int { return cmp.Compare(b.step, a.step) })
	return list, nil
}

// Found is what Latest found.
type Found struct {
	Path    string
	State   *State
	Skipped []error // newer checkpoints that could not be read, to be reported
}

// Latest loads the newest valid checkpoint of a folder: LatestName if it can
// be read, else the step file of the highest step that can. Where there is
// none at all the error is an fs.ErrNotExist: a run may start afresh. Where
// all are damaged the error says so of each: a run must not.
func Latest(dir string) (*Found, error) {
	var f Found
	latest := filepath.Join(dir, LatestName)
	candidates := []string{latest}
	steps, err := stepFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("look for checkpoints: %w", err)
	}
	for _, s := range steps {
		candidates = append(candidates, s.path)
	}
	for _, path := range candidates {
		s, err := Load(path)
		if err == nil {
			f.Path, f.State = path, s
			return &f, nil
		}
		if path == latest && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f.Skipped = append(f.Skipped, err)
	}
	if len(f.Skipped) == 0 {
		return nil, fmt.Errorf("no checkpoint in %s: %w", dir, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("no checkpoint in %s can be read; move the folder away to start afresh: %w", dir, errors.Join(f.Skipped...))
}

// Within is the checkpoint that a path means: the newest of a RUN folder, or of its
// folder of checkpoints, where it is one of those; else path itself.
func Within(path string) string {
	for _, inside := range []string{filepath.Join(path, "checkpoints", LatestName), filepath.Join(path, LatestName)} {
		if _, err := os.Stat(inside); err == nil {
			return inside
		}
	}
	return path
}
