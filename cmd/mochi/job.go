package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/replica/checkpoint"
)

// job is a RUN folder opened for training: what mochi train and mochi
// coordinator have in common.
type job struct {
	cfg   protocol.Config
	dir   *runDir
	store *store
	from  *checkpoint.State // resumed from, nil for a fresh start
	rec   *recorder
}

// openJob opens or makes the RUN folder at path. resume is auto (go on from
// what the folder holds), never (start afresh; what the folder holds is moved
// aside, never deleted) or a checkpoint file to start from.
func openJob(path string, cfg protocol.Config, resume string, errs io.Writer) (*job, error) {
	j := &job{cfg: cfg, store: &store{dir: filepath.Join(path, "checkpoints"), keep: cfg.Keep}}
	var start *checkpoint.State
	switch resume {
	case "auto":
	case "never":
		if err := moveAside(path, errs); err != nil {
			return nil, err
		}
	default:
		var err error
		if start, err = checkpoint.Load(resume); err != nil {
			return nil, fmt.Errorf("--resume: %w", err)
		}
		if err := fits(start, cfg, resume); err != nil {
			return nil, err
		}
		if err := moveAside(path, errs); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(j.store.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	if start != nil {
		if _, err := checkpoint.SaveStep(j.store.dir, start, cfg.Keep); err != nil {
			return nil, err
		}
	}
	cut := int64(-1)
	found, err := checkpoint.Latest(j.store.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		for _, skipped := range found.Skipped {
			fmt.Fprintf(errs, "passed over: %v\n", skipped)
		}
		if err := fits(found.State, cfg, found.Path); err != nil {
			return nil, err
		}
		j.from = found.State
		j.store.last = &coordinator.Checkpoint{Name: filepath.Base(found.Path), Step: j.from.Step, Cursor: j.from.Cursor}
		fmt.Fprintf(errs, "resuming from %s: step %d, epoch %d\n", found.Path, j.from.Step, j.from.Epoch)
		old, err := protocol.ParseConfig([]byte(j.from.Config))
		if diff := protocol.Differences(old, cfg); err != nil || len(diff) > 0 {
			fmt.Fprintf(errs, "settings changed from step %d on: %s\n", j.from.Step, strings.Join(diff, ", "))
			// Steps after the checkpoint were computed with the old ones.
			cut = j.from.Step
			if err := os.RemoveAll(j.commitLog(path)); err != nil {
				return nil, fmt.Errorf("drop the commit log: %w", err)
			}
		}
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
	j.rec = &recorder{dir: j.dir, cfg: cfg, progress: newProgress(errs, cfg)}
	return j, nil
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
func fits(st *checkpoint.State, cfg protocol.Config, path string) error {
	old, err := protocol.ParseConfig([]byte(st.Config))
	if err != nil {
		return fmt.Errorf("%s: its configuration: %w", path, err)
	}
	if diff := protocol.CompatibleResume(old, cfg); len(diff) > 0 {
		return usagef("cannot resume from %s: the checkpoint has other settings (its value ≠ the one asked for):\n  %s\nuse its settings (--config), another --out, or --resume never", path, strings.Join(diff, "\n  "))
	}
	return nil
}

// moveAside renames a RUN folder that holds something to the first free
// PATH.1, PATH.2, ….
func moveAside(path string, errs io.Writer) error {
	entries, err := os.ReadDir(path)
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
		fmt.Fprintf(errs, "moved the old run to %s\n", to)
		return nil
	}
}
