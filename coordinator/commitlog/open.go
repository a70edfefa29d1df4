package commitlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"mochi/coordinator/protocol"
	"mochi/coordinator/wal"
)

// Found is what Open says of a log that it could not take as it was.
type Found struct {
	Damage string // in words: which records of which files; "" when it is whole
	From   int64  // steps that were lost with it, as far as can be told; 0: none, or not known
	To     int64
	Kept   string // what the damaged files are called now
}

// reader collects what the records of a wal say.
type reader struct {
	keep     bool // the commits themselves
	settings settings
	indexes  []uint64
	commits  []protocol.Commit
	last     *protocol.Commit
	gaps     []string
	lost     [2]int64 // the last gap between commits that are there
}

// take notes a record.
func (r *reader) take(record wal.Record) error {
	switch record.Kind {
	case kindSettings:
		var s settings
		if err := json.Unmarshal(record.Data, &s); err != nil {
			r.gaps = append(r.gaps, fmt.Sprintf("the settings in record %d: %v", record.Index, err))
			return nil
		}
		r.set(s)
	case kindCommit:
		c, err := decodeCommit(record)
		if err != nil {
			r.gaps = append(r.gaps, err.Error())
			return nil
		}
		r.commit(record.Index, c)
	default:
		r.gaps = append(r.gaps, fmt.Sprintf("record %d is of an unknown kind %d: a later build of mochi may have written it", record.Index, record.Kind))
	}
	return nil
}

// set takes settings, and what they say of the commits before them.
func (r *reader) set(s settings) {
	n := int64(len(r.indexes))
	base := s.Base
	if n > 0 {
		base = r.last.Step - n
	}
	from, to := min(max(s.Base-base, 0), n), n // those that count
	if s.Cut > 0 {
		to = max(min(s.Cut-base, n), from)
	}
	if s.Anew {
		from, to = 0, 0
	}
	r.indexes = r.indexes[from:to]
	if r.keep {
		r.commits = r.commits[from:to]
	}
	if to < n {
		r.last = nil // the next commit says what it follows; Cut was checked when it was written
	}
	if s.Base = base + from; s.Anew {
		s.Base = s.Cut
	}
	s.Anew, s.Cut = false, 0
	r.settings = s
}

// commit takes a commit. One that does not follow the one before, but is later,
// begins what counts: between them some are lost.
func (r *reader) commit(index uint64, c protocol.Commit) {
	if r.last != nil {
		if err := c.Follows(*r.last); err != nil {
			r.gaps = append(r.gaps, fmt.Sprintf("record %d: %v", index, err))
			if c.Step <= r.last.Step {
				return
			}
			r.lost = [2]int64{r.last.Step + 1, c.Step - 1}
			r.indexes, r.commits = nil, nil
		}
	}
	if len(r.indexes) == 0 {
		r.settings.Base = c.Step - 1
	}
	r.indexes, r.last = append(r.indexes, index), &c
	if r.keep {
		r.commits = append(r.commits, c)
	}
}

// Open opens the log in a folder, or makes an empty one. A log that is damaged is
// made anew from what can be read.
func Open(files wal.Files, o Options) (*Log, Found, error) {
	w, err := wal.Open(files, o.Wal)
	var damaged *wal.DamageError
	if err != nil && !errors.As(err, &damaged) {
		return nil, Found{}, fmt.Errorf("open the commit log: %w", err)
	}
	if damaged != nil {
		return rescue(files, o, damaged.Error())
	}
	r := &reader{}
	if err := w.Range(w.First(), w.Last(), r.take); err != nil {
		return nil, Found{}, fmt.Errorf("read the commit log: %w", err)
	}
	if len(r.gaps) > 0 {
		if err := w.Close(); err != nil {
			return nil, Found{}, fmt.Errorf("close the commit log: %w", err)
		}
		return rescue(files, o, "the commit log is not one history: "+strings.Join(r.gaps, "; "))
	}
	return &Log{room: o.Room, wal: w, settings: r.settings, indexes: r.indexes, last: r.last}, Found{}, nil
}

// rescue makes a log of what can be read of a damaged one. Its files are copied
// first, and the new log takes their place at once.
func rescue(files wal.Files, o Options, damage string) (*Log, Found, error) {
	fail := func(what string, err error) (*Log, Found, error) {
		return nil, Found{}, fmt.Errorf("%s the damaged commit log: %w (%s)", what, err, damage)
	}
	r := &reader{keep: true}
	if _, err := wal.Salvage(files, r.take); err != nil {
		return fail("read", err)
	}
	if o.Room != nil {
		if err := o.Room(); err != nil {
			return fail("copy", err)
		}
	}
	kept, err := setAside(files)
	if err != nil {
		return fail("copy", err)
	}
	r.settings.Anew = true
	r.settings.Cut = r.settings.Base
	records, err := encodeAll(1, r.settings, r.commits)
	if err != nil {
		return fail("make anew", err)
	}
	w, err := wal.Rebuild(files, o.Wal, records)
	if err != nil {
		return fail("make anew", err)
	}
	again := &reader{}
	if err := w.Range(w.First(), w.Last(), again.take); err != nil {
		return fail("make anew", err)
	}
	l := &Log{room: o.Room, wal: w, settings: again.settings, indexes: again.indexes, last: again.last}
	return l, Found{Damage: damage, From: r.lost[0], To: r.lost[1], Kept: kept}, nil
}

// setAside copies the files of a log to others of the folder, damaged-N.NAME.
func setAside(files wal.Files) (pattern string, err error) {
	names, err := files.List()
	if err != nil {
		return "", err
	}
	prefix, n := "damaged-1.", 1
	for slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, prefix) }) {
		n++
		prefix = fmt.Sprintf("damaged-%d.", n)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "damaged-") {
			continue
		}
		if err := copyFile(files, name, prefix+name); err != nil {
			return "", err
		}
	}
	return prefix + "*", files.SyncDir()
}

func copyFile(files wal.Files, from, to string) error {
	in, err := files.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := files.Create(to)
	if err != nil {
		return err
	}
	size, err := in.Size()
	for at := int64(0); err == nil && at < size; {
		part := make([]byte, min(size-at, 1<<20))
		var n int
		if n, err = in.ReadAt(part, at); err == io.EOF && n == len(part) {
			err = nil
		}
		if err == nil {
			_, err = out.WriteAt(part, at)
			at += int64(n)
		}
	}
	if err == nil {
		err = out.Sync()
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}
