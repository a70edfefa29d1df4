package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/wal"
)

// Commits is where a RUN folder has the commit log.
func Commits(path string) string { return filepath.Join(path, "commits") }

// openLog opens the commit log. saved is the configuration of the checkpoint, nil when
// there is none. A log of other settings than those asked for is moved aside: the steps
// after the checkpoint, above cut, are run again with the new ones (−1: none are). What
// counts is for which settings the log is, not what the checkpoint had: that may be
// older than the change.
func (j *Job) openLog(path string, saved *config.Job, p *Progress) (cut int64, err error) {
	dir := Commits(path)
	if err := j.useLog(dir, p); err != nil {
		return 0, err
	}
	former := filepath.Join(path, "jetstream") // of an earlier build
	if _, err := os.Stat(former); err == nil {
		j.Former = former
	}
	old, err := j.loggedConfig(path, saved)
	if err != nil {
		return 0, err
	}
	if old == nil {
		return -1, nil
	}
	diff := config.Changes(*old, j.Config)
	if len(diff) == 0 {
		return -1, nil
	}
	if j.Former != "" {
		if _, err := aside(j.Former); err != nil {
			return 0, fmt.Errorf("move the commit log of the old settings aside: %w", err)
		}
		j.Former = ""
	}
	return j.changed(dir, diff, p)
}

// TookOver says that the log has all that the one of an earlier build had, which is
// moved aside.
func (j *Job) TookOver() error {
	_, err := aside(j.Former)
	j.Former = ""
	return err
}

// useLog opens the log in a folder and says what was found damaged.
func (j *Job) useLog(dir string, p *Progress) (err error) {
	var found commitlog.Found
	j.Log, found, err = commitlog.Open(wal.Dir(dir), commitlog.Options{Room: RoomUnder(dir)})
	if err != nil {
		return err
	}
	if found.Damage != "" {
		p.Say("warning: %s. What can be read is used; the files as they were are %s", found.Damage, filepath.Join(dir, found.Kept))
	}
	return nil
}

// loggedConfig is the configuration that the log is of: as it says; else (a log that is
// new, or of an earlier build) that of the last start; else the checkpoint's.
func (j *Job) loggedConfig(path string, saved *config.Job) (*config.Job, error) {
	text, from := []byte(j.Log.Config()), "the commit log"
	if len(text) == 0 {
		var err error
		from = filepath.Join(path, configFile)
		if text, err = os.ReadFile(from); errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
			return saved, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the settings of the last start: %w", err)
		}
	}
	old, err := config.Recorded(text)
	if err != nil {
		return nil, fmt.Errorf("%s: its configuration: %w", from, err)
	}
	return &old, nil
}

// changed moves the log of other settings aside.
func (j *Job) changed(dir string, diff []config.Change, p *Progress) (cut int64, err error) {
	if j.From != nil {
		cut = j.From.Step
	}
	j.changes = &settingsChanged{Step: cut, Old: map[string]string{}, New: map[string]string{}}
	var said []string
	for _, c := range diff {
		said = append(said, c.String())
		j.changes.Old[c.Setting], j.changes.New[c.Setting] = c.Old, c.New
	}
	p.Say("settings changed from step %d on: %s", cut, strings.Join(said, ", "))
	notes := j.Log.Notes() // who was left out for wrong arithmetic stays so
	term := j.Log.Term()
	round, err := j.Log.Round(context.Background())
	if err != nil {
		return 0, err
	}
	if err := j.Log.Close(); err != nil {
		return 0, err
	}
	to, err := aside(dir)
	if err != nil {
		return 0, fmt.Errorf("move the commit log of the old settings aside: %w", err)
	}
	p.Say("the commits of the old settings are kept in %s", to)
	if err := j.useLog(dir, p); err != nil {
		return 0, err
	}
	if notes == nil {
		notes = map[string]string{}
	}
	// What replicas keep of the old settings' commits is not wanted back.
	notes[coordinator.NoteSince] = strconv.FormatUint(term+1, 10)
	if err := j.goOn(term, round); err != nil {
		return 0, err
	}
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		if err := j.Log.SaveNote(context.Background(), name, notes[name]); err != nil {
			return 0, err
		}
	}
	return cut, nil
}

// goOn makes a new log's terms and rounds later ones than those of the log before.
func (j *Job) goOn(term uint64, round int64) error {
	_, err := j.Log.Lead(context.Background(), term)
	return errors.Join(err, j.Log.SaveRound(context.Background(), round))
}

// formerTerms are the last term and the last round of the log in a RUN folder that is
// about to be moved aside; 0 when there is none that can be read.
func formerTerms(path string) (term uint64, round int64) {
	dir := Commits(path)
	if _, err := os.Stat(dir); err != nil {
		return 0, 0
	}
	l, _, err := commitlog.Open(wal.Dir(dir), commitlog.Options{})
	if err != nil {
		return 0, 0
	}
	defer l.Close()
	round, err = l.Round(context.Background())
	if err != nil {
		return 0, 0
	}
	return l.Term(), round
}

// AddLog adds --log to a command.
func AddLog(c *cli.Command, value *string) {
	c.StringVar(value, "log", logWhole, "whole: refuse to start without commits that are known to have been made and that neither the commit log nor a replica has; rebuild: go on without them, and run their steps again")
	c.Complete("log", logWhole, logRebuild)
}

// The words of --log.
const (
	logWhole   = "whole"
	logRebuild = "rebuild"
)

// Rebuilds says whether --log asks to go on without what the log has lost.
func Rebuilds(f *cli.Faults, value string) bool {
	if value != logWhole && value != logRebuild {
		f.Add("log", "%q is neither %s nor %s", value, logWhole, logRebuild)
	}
	return value == logRebuild
}

// Whole is an error when the log ends before what is on record. Nobody can bring what
// is missing where all replicas start with their coordinator.
func (j *Job) Whole() error {
	last, _, err := j.Log.Last(context.Background())
	if err != nil {
		return err
	}
	head := last.Step
	if j.From != nil {
		head = max(head, j.From.Step)
	}
	if recorded := j.Recorded(); recorded > head {
		return fmt.Errorf("%w: it ends with step %d, but log.jsonl has step %d: bring back the folder as it was; --log rebuild goes on with what there is, and runs steps %d to %d again", coordinator.ErrLogShort, head, recorded, head+1, recorded)
	}
	return nil
}

// aside renames a file or folder to the first free PATH.1, PATH.2, ….
func aside(path string) (to string, err error) {
	if to, err = freeName(path); err != nil {
		return "", err
	}
	return to, os.Rename(path, to)
}

// freeName is the first free PATH.1, PATH.2, ….
func freeName(path string) (string, error) {
	for i := 1; ; i++ {
		to := fmt.Sprintf("%s.%d", filepath.Clean(path), i)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to, nil
		} else if err != nil {
			return "", err
		}
	}
}

// mostFloor is how much room a large disk must have for the log to be written.
const mostFloor = 256 << 20

// RoomUnder says why nothing should be written under a folder: less is free than 256 MB,
// or than a twentieth of a small disk. A disk that is full to the last byte cannot even
// be tidied up.
func RoomUnder(dir string) func() error {
	return func() error {
		var disk unix.Statfs_t
		if err := unix.Statfs(dir, &disk); err != nil {
			return nil // not known: writing will tell
		}
		size := uint64(disk.Bsize)
		free, floor := disk.Bavail*size, min(disk.Blocks*size/20, mostFloor)
		if free >= floor {
			return nil
		}
		return fmt.Errorf("%.1f MB are free under %s, %.1f MB must be: %w", float64(free)/1e6, dir, float64(floor)/1e6, coordinator.ErrDiskFull)
	}
}
