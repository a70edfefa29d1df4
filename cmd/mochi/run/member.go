package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/wal"
	"mochi/replica/checkpoint"
)

// Group is where a RUN folder has what belongs to a group of coordinators: their log.
func Group(path string) string { return filepath.Join(path, "group") }

// Outlet is a Sink that can be led elsewhere; what comes while it leads nowhere is
// dropped.
type Outlet struct {
	mu sync.Mutex
	to Sink
}

// Lead makes it lead to a sink; nil: nowhere.
func (o *Outlet) Lead(to Sink) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to = to
}

func (o *Outlet) sink() Sink {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.to
}

// Step implements Sink.
func (o *Outlet) Step(file string, step int64, v any) error {
	if s := o.sink(); s != nil {
		return s.Step(file, step, v)
	}
	return nil
}

// Event implements Sink.
func (o *Outlet) Event(e event.Event) error {
	if s := o.sink(); s != nil {
		return s.Event(e)
	}
	return nil
}

// OpenMember opens or makes the RUN folder of one of a group of coordinators. Its lines
// are those of the group (Copies), its Recorder writes to Outlet, and what a single
// coordinator had left in it is Before. A checkpoint given counts only for a folder
// without a run.
func OpenMember(path string, cfg config.Job, start *checkpoint.State, p *Progress) (_ *Job, err error) {
	j := &Job{Config: cfg, Store: &Store{Dir: filepath.Join(path, "checkpoints"), keep: cfg.Keep}, Outlet: &Outlet{}}
	if err := os.MkdirAll(j.Store.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	if j.lock, err = LockRun(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	if _, err := os.Stat(filepath.Join(path, "jetstream")); err == nil {
		return nil, cli.UsageError{Err: fmt.Errorf("%s has the commit log of an earlier build: start it once without --standby, which takes it over, and stop that", path)}
	}
	if j.Before, err = openBefore(Commits(path)); err != nil {
		return nil, err
	}
	if j.Before != nil {
		if err := j.Before.fitsGroup(cfg); err != nil {
			return nil, cli.UsageError{Err: err}
		}
	}
	_, err = os.Stat(Group(path))
	fresh := errors.Is(err, fs.ErrNotExist) && j.Before == nil
	if start != nil && fresh {
		if old, err := checkpoint.Latest(j.Store.Dir); err == nil && old.State.Step != start.Step || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, cli.UsageError{Err: fmt.Errorf("--resume or --init: %s holds checkpoints of another run; choose a new folder", path)}
		}
		if _, err := checkpoint.SaveStep(j.Store.Dir, start, cfg.Keep); err != nil {
			return nil, err
		}
	} else if start != nil {
		p.Say("note: --resume or --init is passed over: %s holds a run, which goes on", path)
	}
	if _, err := j.takeUp(path, p); err != nil {
		return nil, err
	}
	text, err := j.Config.YAML()
	if err != nil {
		return nil, err
	}
	net, err := j.Config.Network()
	if err != nil {
		return nil, err
	}
	j.Store.limit = checkpoint.SizeAtMost(net, j.Config.Queue, j.Config.Dim, j.Config.Labels)
	if err := WriteFile(filepath.Join(path, "config.yaml"), text); err != nil {
		return nil, err
	}
	if j.Copies, err = OpenCopies(path, p); err != nil {
		return nil, err
	}
	j.Recorder = &Recorder{path: path, out: j.Outlet, cfg: j.Config, progress: p}
	return j, nil
}

// Before is the run of a single coordinator, which a group can begin with: its commits.
// Its lines are where those of the group will be.
type Before struct {
	path string
	log  *commitlog.Log

	Config config.Job
	Last   protocol.Commit // of its log; Step 0: there is none
}

// openBefore opens the commit log of a single coordinator, nil when there is none.
func openBefore(path string) (*Before, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	log, found, err := commitlog.Open(wal.Dir(path), commitlog.Options{})
	if err == nil && found.Damage != "" {
		err = errors.Join(fmt.Errorf("%s: %s; start it once without --standby, which goes on with what is left, and stop that", path, found.Damage), log.Close())
	}
	if err != nil {
		return nil, err
	}
	b := &Before{path: path, log: log}
	var known bool
	if b.Last, known, err = log.Last(context.Background()); err == nil && known {
		b.Config, err = config.Recorded([]byte(log.Config()))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), log.Close())
	}
	return b, nil
}

// Log is its commit log.
func (b *Before) Log() *commitlog.Log { return b.log }

// Done moves it aside: the group has all of it.
func (b *Before) Done() (to string, err error) {
	if err := b.log.Close(); err != nil {
		return "", err
	}
	return aside(b.path)
}

// fitsGroup says why a run from before cannot be gone on with by these settings.
func (b *Before) fitsGroup(cfg config.Job) error {
	if b.Last.Step == 0 {
		return nil
	}
	if diff := config.Differences(b.Config, cfg); len(diff) > 0 {
		return fmt.Errorf("the run in %s has other settings (its value ≠ the one asked for):\n  %s\na group goes on with the settings of the run; to change them, start it once without --standby", filepath.Dir(b.path), strings.Join(diff, "\n  "))
	}
	return nil
}
