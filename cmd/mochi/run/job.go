package run

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/convert"
	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
)

// Job is a RUN folder opened for training: what mochi train and mochi
// coordinator have in common.
type Job struct {
	Config   config.Job
	Dir      *Dir
	Store    *Store
	From     *checkpoint.State // resumed from, nil for a fresh start
	Recorder *Recorder
	Log      *commitlog.Log
	Afresh   bool   // it takes up nothing of an earlier run
	Over     bool   // Beginning.Over said so: nothing else is open
	Former   string // the folder of the log of an earlier build, "" when there is none

	// Of one of a group of coordinators (OpenMember), whose log is elsewhere; else nil.
	Copies *Copies
	Outlet *Outlet
	Before *Before
	lock   *os.File

	changes *settingsChanged // since the last start, nil for none
}

// Beginning is what a run begins with, where it is not the seed: --resume and --init.
type Beginning struct {
	Resume string // auto, never or a checkpoint
	Init   string // a checkpoint whose weights are taken; "": none
	State  *checkpoint.State

	// Over says whether a job whose newest checkpoint this is has nothing more to do;
	// nil: not known. Such a run stays as it is, whatever the settings.
	Over func(*checkpoint.State) bool
}

// AddBeginning adds --resume and --init.
func AddBeginning(c *cli.Command, b *Beginning) {
	c.StringVar(&b.Resume, "resume", "auto", "auto: go on from what the run folder holds; never: start afresh, what it holds is moved aside; `FILE`: go on in a new run from all of this checkpoint, schedule included; of another program's (mochi import) from its weights, at step 0")
	c.Complete("resume", "auto", "never")
	c.StringVar(&b.Init, "init", "", "`FILE`, a checkpoint of mochi or of another program (mochi import), or a RUN: a new run begins with the weights of its query encoder alone; schedule, data and image size are this run's. Where the run folder holds steps already, it goes on")
}

// Check reads what --resume and --init name; what is wrong goes to f. say tells what
// of a file is not taken.
func (b *Beginning) Check(f *cli.Faults, cfg config.Job, say func(string)) {
	if b.Init == "" {
		b.State = resumed(f, b.Resume, cfg)
		return
	}
	if b.Resume != "auto" && b.Resume != "never" {
		f.Add("init", "and --resume %s are two beginnings: --resume goes on with all of a checkpoint, --init takes its weights alone", b.Resume)
		return
	}
	st, notes, err := convert.Weights(checkpoint.Within(b.Init), cfg)
	f.AddErr("init", err)
	for _, n := range notes {
		say("--init: " + n)
	}
	b.State = st
}

// resumed checks --resume and loads the checkpoint it names, nil for none.
func resumed(f *cli.Faults, value string, cfg config.Job) *checkpoint.State {
	switch value {
	case "auto", "never":
		return nil
	case "":
		f.Add("resume", "is empty: auto, never or a checkpoint FILE")
		return nil
	}
	value = checkpoint.Within(value)
	if convert.IsForeign(value) {
		st, _, err := convert.Continue(value, cfg)
		f.AddErr("resume", err)
		return st
	}
	st, err := checkpoint.Load(value)
	if errors.Is(err, fs.ErrNotExist) {
		f.Add("resume", "%q is neither auto nor never nor a file", value)
		return nil
	}
	if err == nil {
		err = fits(st, cfg, value)
	}
	f.AddErr("resume", err)
	return st
}

// Open opens or makes the RUN folder at path; the job's configuration is then
// Config, which has of a checkpoint what cfg leaves open. Nothing is changed in a
// folder that another process trains in.
func Open(path string, cfg config.Job, begin Beginning, p *Progress) (_ *Job, err error) {
	resume, start := begin.Resume, begin.State
	j := &Job{Config: cfg, Store: &Store{Dir: filepath.Join(path, "checkpoints"), keep: cfg.Keep}}
	if j.lock, err = LockRun(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	if _, err := os.Stat(Group(path)); err == nil && resume == "auto" {
		return nil, cli.UsageError{Err: fmt.Errorf("%s is that of a coordinator in a group: start it with --standby and --name; alone it would not know what the others have committed. To go on without the group, give --resume a checkpoint of it and choose a new folder", path)}
	}
	var term uint64 // of the run that is moved aside
	var round int64
	if j.Afresh = resume != "auto"; j.Afresh {
		term, round = formerTerms(path)
		if err := moveAside(path, p); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(j.Store.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(path, lockName)); err != nil { // new, or moved aside
		j.lock.Close()
		if j.lock, err = LockRun(path); err != nil {
			return nil, err
		}
	}
	if start != nil && resume == "auto" { // --init
		_, none := checkpoint.Latest(j.Store.Dir)
		_, unlogged := os.Stat(Commits(path))
		if !errors.Is(none, fs.ErrNotExist) || !errors.Is(unlogged, fs.ErrNotExist) {
			start = nil
			p.Say("%s holds a run that began already, and goes on; --init changes nothing in it", path)
		}
	}
	if start != nil {
		if _, err := checkpoint.SaveStep(j.Store.Dir, start, cfg.Keep); err != nil {
			return nil, err
		}
	}
	old, err := j.takeUp(path, p)
	if err != nil {
		return nil, err
	}
	if j.From != nil && begin.Over != nil && begin.Over(j.From) {
		j.Over = true
		return j, nil
	}
	cut, err := j.openLog(path, old, p)
	if err != nil {
		return nil, err
	}
	if term > 0 {
		if err := j.goOn(term, round); err != nil {
			return nil, err
		}
	}
	cfg = j.Config
	text, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	net, err := cfg.Network()
	if err != nil {
		return nil, err
	}
	j.Store.limit = checkpoint.SizeAtMost(net, cfg.Queue, cfg.Dim, cfg.Labels)
	if j.Dir, err = openRun(path, cut, cfg.SampleLog); err != nil {
		return nil, err
	}
	// From here on the log is of these settings; config.yaml is looked at when it does
	// not say so.
	if err := j.Log.SaveConfig(string(text)); err != nil {
		return nil, err
	}
	if j.changes != nil {
		if err := j.keepSettings(path, text); err != nil {
			return nil, err
		}
	}
	if err := writeConfig(filepath.Join(path, configFile), text); err != nil {
		return nil, err
	}
	j.Recorder = &Recorder{path: path, out: j.Dir, cfg: cfg, progress: p}
	return j, nil
}

// keepSettings logs what has changed, and keeps config.yaml as it was until now (text is
// the new one).
func (j *Job) keepSettings(path string, text []byte) error {
	if err := j.Dir.Event(*j.changes); err != nil {
		return err
	}
	file := filepath.Join(path, configFile)
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(old, text) {
		return nil
	} else if err != nil {
		return fmt.Errorf("keep the settings of before: %w", err)
	}
	to, err := freeName(file)
	if err != nil {
		return err
	}
	return WriteFile(to, old)
}

// writeConfig writes config.yaml, unless it is there as it should be: on a full disk a
// run is opened again, and waits for room with all else that it has to write.
func writeConfig(path string, text []byte) error {
	if is, err := os.ReadFile(path); err == nil && bytes.Equal(is, text) {
		return nil
	}
	return WriteFile(path, text)
}

// takeUp finds the checkpoint to go on from, if there is one, and returns its
// configuration.
func (j *Job) takeUp(path string, p *Progress) (*config.Job, error) {
	found, err := checkpoint.Latest(j.Store.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, skipped := range found.Skipped {
		p.Say("passed over: %v", skipped)
	}
	if err := fits(found.State, j.Config, found.Path); err != nil {
		return nil, cli.UsageError{Err: err}
	}
	j.From = found.State
	j.Store.last = &coordinator.Checkpoint{Name: filepath.Base(found.Path), Step: j.From.Step, Cursor: j.From.Cursor}
	if j.From.Step > 0 {
		p.Say("resuming from %s: step %d, epoch %d", found.Path, j.From.Step, j.From.Epoch+1)
	}
	old, err := config.Recorded([]byte(j.From.Config))
	if err != nil {
		return nil, fmt.Errorf("%s: its configuration: %w", found.Path, err)
	}
	if j.Config.Pairs == "" && j.Config.Copies() == 0 { // not asked for: what it had
		j.Config.Pairs = old.Pairs
	}
	return &old, nil
}

// Events is where events go that are not the coordinator's.
func (j *Job) Events() Sink {
	if j.Outlet != nil {
		return j.Outlet
	}
	return j.Dir
}

// Recorded is the last step that both logs hold.
func (j *Job) Recorded() int64 {
	if j.Copies != nil {
		return j.Copies.Recorded(j.Config.SampleLog)
	}
	last := j.Dir.log.last
	if j.Dir.samples != nil {
		last = min(last, j.Dir.samples.last)
	}
	return last
}

// fits says whether training can go on from a checkpoint.
func fits(st *checkpoint.State, cfg config.Job, path string) error {
	old, err := config.Recorded([]byte(st.Config))
	if err != nil {
		return fmt.Errorf("%s: its configuration: %w", path, err)
	}
	if diff := config.CompatibleResume(old, cfg); len(diff) > 0 {
		return fmt.Errorf("cannot resume from %s: the checkpoint has other settings (its value ≠ the one asked for):\n  %s\nuse its settings (--config), another --out, or --resume never", path, strings.Join(diff, "\n  "))
	}
	return nil
}

// SameData says whether training can go on from a checkpoint with a data set: its
// cursor counts the samples of one. Where either is not known, it can.
func SameData(st *checkpoint.State, d protocol.Data) error {
	if st == nil || st.Data == "" || d.Digest == "" {
		return nil
	}
	if st.Data == d.Digest {
		if other := (protocol.Data{Shards: st.Shards}).OtherShards(d); other != "" {
			return fmt.Errorf("the content of %s has changed since the checkpoint of step %d: use the same data. To train its weights on other data, give it to --init", other, st.Step)
		}
		return nil
	}
	return fmt.Errorf("the checkpoint of step %d is of other data (digest %s, now %s; mochi data inspect shows it), so samples of its epoch would be drawn twice or never: use the same data. To train its weights on other data, give it to --init", st.Step, st.Data, d.Digest)
}

// moveAside renames a RUN folder that holds something to the first free
// PATH.1, PATH.2, ….
func moveAside(path string, p *Progress) error {
	entries, err := os.ReadDir(path)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == lockName })
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the run folder: %w", err)
	}
	to, err := aside(path)
	if err != nil {
		return fmt.Errorf("move the old run aside: %w", err)
	}
	p.Say("moved the old run to %s", to)
	return nil
}

// configFile has the settings of the last start.
const configFile = "config.yaml"

// lockName is the file whose lock says that a process trains in a RUN folder.
const lockName = ".lock"

// LockRun takes the lock of a RUN folder; the error is fs.ErrNotExist where
// there is no folder. The system drops the lock with the process.
func LockRun(path string) (*os.File, error) {
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

// Close ends the job's hold on the RUN folder.
func (j *Job) Close() error {
	var err error
	if j.Dir != nil {
		err = j.Dir.close()
	}
	if j.Log != nil {
		err = errors.Join(err, j.Log.Close())
	}
	if j.Copies != nil {
		err = errors.Join(err, j.Copies.Close())
	}
	if j.Before != nil {
		err = errors.Join(err, j.Before.log.Close())
	}
	j.lock.Close() // of nil: an error of no interest
	return err
}
