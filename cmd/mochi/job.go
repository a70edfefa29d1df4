package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mochi/coordinator"
	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
)

// job is a RUN folder opened for training: what mochi train and mochi
// coordinator have in common.
type job struct {
	cfg   config.Job
	dir   *runDir
	store *store
	from  *checkpoint.State // resumed from, nil for a fresh start
	rec   *recorder
	lock  *os.File
}

// resumeFlag is what --resume says in help.
const resumeFlag = "auto: go on from what the run folder holds; never: start afresh, what it holds is moved aside; `FILE`: start afresh from this checkpoint"

// resumed checks --resume and loads the checkpoint it names, nil for none.
func resumed(f *faults, value string, cfg config.Job) *checkpoint.State {
	switch value {
	case "auto", "never":
		return nil
	case "":
		f.add("resume", "is empty: auto, never or a checkpoint FILE")
		return nil
	}
	st, err := checkpoint.Load(value)
	if errors.Is(err, fs.ErrNotExist) {
		f.add("resume", "%q is neither auto nor never nor a file", value)
		return nil
	}
	if err == nil {
		err = fits(st, cfg, value)
	}
	f.addErr("resume", err)
	return st
}

// openJob opens or makes the RUN folder at path. resume is --resume, and start
// the checkpoint it names, nil for auto and never. Nothing is changed in a
// folder that another process trains in.
func openJob(path string, cfg config.Job, resume string, start *checkpoint.State, p *progress) (_ *job, err error) {
	j := &job{cfg: cfg, store: &store{dir: filepath.Join(path, "checkpoints"), keep: cfg.Keep}}
	if j.lock, err = lockRun(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if resume != "auto" {
		if err := moveAside(path, p); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(j.store.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(path, lockName)); err != nil { // new, or moved aside
		j.lock.Close()
		if j.lock, err = lockRun(path); err != nil {
			return nil, err
		}
	}
	if start != nil {
		if _, err := checkpoint.SaveStep(j.store.dir, start, cfg.Keep); err != nil {
			return nil, err
		}
	}
	cut, err := j.takeUp(path, p)
	if err != nil {
		return nil, err
	}
	text, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(path, "config.yaml"), text); err != nil {
		return nil, err
	}
	if j.dir, err = openRun(path, cut, cfg.SampleLog); err != nil {
		return nil, err
	}
	j.rec = &recorder{dir: j.dir, cfg: cfg, progress: p}
	return j, nil
}

// takeUp finds the checkpoint to go on from, if there is one. Steps above cut
// (−1: none) are to be run again with other settings than they were.
func (j *job) takeUp(path string, p *progress) (cut int64, err error) {
	found, err := checkpoint.Latest(j.store.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	for _, skipped := range found.Skipped {
		p.say("passed over: %v", skipped)
	}
	if err := fits(found.State, j.cfg, found.Path); err != nil {
		return 0, usageError{err}
	}
	j.from = found.State
	j.store.last = &coordinator.Checkpoint{Name: filepath.Base(found.Path), Step: j.from.Step, Cursor: j.from.Cursor}
	p.say("resuming from %s: step %d, epoch %d", found.Path, j.from.Step, j.from.Epoch+1)
	old, err := config.Parse([]byte(j.from.Config))
	if err != nil {
		return 0, fmt.Errorf("%s: its configuration: %w", found.Path, err)
	}
	diff := config.Differences(old, j.cfg)
	if len(diff) == 0 {
		return -1, nil
	}
	p.say("settings changed from step %d on: %s", j.from.Step, strings.Join(diff, ", "))
	// Steps after the checkpoint were computed with the old ones.
	if err := os.RemoveAll(j.commitLog(path)); err != nil {
		return 0, fmt.Errorf("drop the commit log: %w", err)
	}
	return j.from.Step, nil
}

// commitLog is where the coordinator's JetStream keeps the commits.
func (j *job) commitLog(path string) string { return filepath.Join(path, "jetstream") }

// recorded is the last step that both logs hold.
func (j *job) recorded() int64 {
	last := j.dir.log.last
	if j.dir.samples != nil {
		last = min(last, j.dir.samples.last)
	}
	return last
}

// fits says whether training can go on from a checkpoint.
func fits(st *checkpoint.State, cfg config.Job, path string) error {
	old, err := config.Parse([]byte(st.Config))
	if err != nil {
		return fmt.Errorf("%s: its configuration: %w", path, err)
	}
	if diff := config.CompatibleResume(old, cfg); len(diff) > 0 {
		return fmt.Errorf("cannot resume from %s: the checkpoint has other settings (its value ≠ the one asked for):\n  %s\nuse its settings (--config), another --out, or --resume never", path, strings.Join(diff, "\n  "))
	}
	return nil
}

// moveAside renames a RUN folder that holds something to the first free
// PATH.1, PATH.2, ….
func moveAside(path string, p *progress) error {
	entries, err := os.ReadDir(path)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == lockName })
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the run folder: %w", err)
	}
	for i := 1; ; i++ {
		to := fmt.Sprintf("%s.%d", filepath.Clean(path), i)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(path, to); err != nil {
			return fmt.Errorf("move the old run aside: %w", err)
		}
		p.say("moved the old run to %s", to)
		return nil
	}
}

// lockName is the file whose lock says that a process trains in a RUN folder.
const lockName = ".lock"

// lockRun takes the lock of a RUN folder; the error is fs.ErrNotExist where
// there is no folder. The system drops the lock with the process.
func lockRun(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the run folder: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("another mochi is training in %s; wait for it, stop it, or choose another folder", path)
	}
	return nil, fmt.Errorf("lock the run folder %s: %w", path, err)
}

// close ends the job's hold on the RUN folder.
func (j *job) close() error {
	var err error
	if j.dir != nil {
		err = j.dir.close()
	}
	j.lock.Close() // of nil: an error of no interest
	return err
}
