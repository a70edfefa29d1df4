package jetstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator/follow"
	"mochi/coordinator/protocol"
)

// Kinds of entries of a group's log: what comes behind "mochi.JOB.log." in their
// subject. Of a setting (and of begin) only the last entry is kept.
const (
	kindCommit = "commit"
	kindLines  = "lines"  // of one file, with a newline between two; headers File and First
	kindBegin  = "begin"  // a leadership: JSON, see begun
	kindSet    = "set."   // and the name of a setting
	setTerm    = "term"   // decimal, as round
	setRound   = "round"  //
	setData    = "data"   // protocol.Data
	setConfig  = "config" // YAML
	setNote    = "note."  // and the name of the note
	setHeld    = "held"   // lines by file that the first leader had before there was a group
	setStored  = "stored" // follow.Checkpoint
	setOver    = "over"   // follow.Outcome; empty: it goes on
	setForget  = "forget" // decimal: commits up to this step are let go of
)

const (
	idHeader    = "Mochi-Entry" // unique to an attempt to write
	fileHeader  = "File"
	firstHeader = "First"
)

// entry is one message of the log.
type entry struct {
	kind  string // or kindSet and a name
	file  string // of lines
	first int64  // likewise
	body  []byte
}

// begun says who began to lead.
type begun struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
}

// message is an entry as it travels.
func (e entry) message(job, id string) *nats.Msg {
	m := nats.NewMsg(logSubject(job) + e.kind)
	m.Data = e.body
	m.Header.Set(idHeader, id)
	switch e.kind {
	case kindCommit:
	case kindLines:
		m.Header.Set(fileHeader, e.file)
		m.Header.Set(firstHeader, strconv.FormatInt(e.first, 10))
	default:
		m.Header.Set(js.MsgRollup, js.MsgRollupSubject)
	}
	return m
}

// entryOf reads an entry back.
func entryOf(job string, raw *js.RawStreamMsg) (e entry, err error) {
	e.kind, e.body = strings.TrimPrefix(raw.Subject, logSubject(job)), raw.Data
	if e.kind == kindLines {
		e.file = raw.Header.Get(fileHeader)
		e.first, err = strconv.ParseInt(raw.Header.Get(firstHeader), 10, 64)
		if err != nil || e.first < 1 || e.file == "" {
			err = fmt.Errorf("entry %d of the log: it has lines, and does not say which", raw.Sequence)
		}
	}
	return e, err
}

func logSubject(job string) string { return fmt.Sprintf("mochi.%s.log.", job) }

// logged is a commit, and where it is.
type logged struct {
	seq    uint64
	commit protocol.Commit
}

// part is an entry of lines.
type part struct {
	seq   uint64
	bytes int
}

// state is what the entries up to one of them come to.
type state struct {
	seq     uint64            // of the last one
	commits []logged          // a history in one piece; elements are never changed
	set     map[string][]byte // settings by name; values are never changed
	lines   map[string]int64  // so many of each file
	parts   []part            // the last of them
	bytes   int               // in them
	known   bool              // how many lines there are
	leads   begun
	since   time.Time // when it began
	stored  int64     // step of the newest checkpoint
	overAt  uint64    // the entry that said so, 0: the job is not over
}

func newState() *state { return &state{set: map[string][]byte{}, lines: map[string]int64{}} }

func (s *state) clone() *state {
	c := *s
	c.commits, c.parts = s.commits[:len(s.commits):len(s.commits)], s.parts[:len(s.parts):len(s.parts)]
	c.set, c.lines = maps.Clone(s.set), maps.Clone(s.lines)
	return &c
}

// item is something that the follower is told.
type item struct {
	file   string // of lines
	first  int64  // likewise
	lines  [][]byte
	stored *follow.Checkpoint
	over   *follow.Outcome
	config string
}

// apply carries out an entry. A later commit takes the place of all from its step on, and
// of all if it does not follow those before.
func (s *state) apply(seq uint64, at time.Time, e entry) (told item, err error) {
	s.seq = seq
	switch {
	case e.kind == kindCommit:
		var c protocol.Commit
		if err = protocol.Decode(e.body, &c); err == nil {
			s.commit(seq, c)
		}
	case e.kind == kindLines:
		told = item{file: e.file, first: e.first, lines: bytes.Split(e.body, []byte("\n"))}
		s.known, s.lines[e.file] = true, e.first+int64(len(told.lines))-1
		s.parts, s.bytes = append(s.parts, part{seq, len(e.body)}), s.bytes+len(e.body)
		for s.bytes-s.parts[0].bytes >= mostLines {
			s.bytes -= s.parts[0].bytes
			s.parts = s.parts[1:]
		}
	case e.kind == kindBegin:
		s.since = at
		err = json.Unmarshal(e.body, &s.leads)
	case strings.HasPrefix(e.kind, kindSet):
		name := strings.TrimPrefix(e.kind, kindSet)
		s.set[name] = e.body
		told, err = s.setting(seq, name, e.body)
	default:
		err = fmt.Errorf("its kind %q is not known: a later build of mochi may have written it", e.kind)
	}
	if err != nil {
		err = fmt.Errorf("entry %d of the log: %w", seq, err)
	}
	return told, err
}

func (s *state) setting(seq uint64, name string, body []byte) (told item, err error) {
	switch name {
	case setConfig:
		told.config = string(body)
	case setHeld:
		held := map[string]int64{}
		err = json.Unmarshal(body, &held)
		for file, n := range held { // lines may have been read before: they were written later
			s.lines[file] = max(s.lines[file], n)
		}
		s.known = true
	case setStored:
		if err = json.Unmarshal(body, &told.stored); err == nil && told.stored != nil {
			s.stored = told.stored.Step
		}
	case setOver:
		if s.overAt = 0; len(body) > 0 {
			s.overAt = seq
			err = json.Unmarshal(body, &told.over)
		}
	case setForget:
		var step int64
		if step, err = strconv.ParseInt(string(body), 10, 64); err == nil {
			s.forget(step)
		}
	}
	return told, err
}

func (s *state) commit(seq uint64, c protocol.Commit) {
	n := len(s.commits)
	for n > 0 && s.commits[n-1].commit.Step >= c.Step {
		n--
	}
	if n > 0 && c.Follows(s.commits[n-1].commit) != nil {
		n = 0
	}
	if n < len(s.commits) {
		s.commits = s.commits[:n:n]
	}
	s.commits = append(s.commits, logged{seq, c})
}

// last is the last commit, nil when there is none.
func (s *state) last() *protocol.Commit {
	if len(s.commits) == 0 {
		return nil
	}
	return &s.commits[len(s.commits)-1].commit
}

// forgettable is how many commits up to a step are let go of: from keep on it is worth it.
func (s *state) forgettable(step int64) int {
	n := 0
	for n < len(s.commits)-keep && s.commits[n].commit.Step <= step {
		n++
	}
	if n < keep {
		return 0
	}
	return n
}

func (s *state) forget(step int64) {
	if n := s.forgettable(step); n > 0 {
		s.commits = append([]logged(nil), s.commits[n:]...)
	}
}

// number is a setting that is one, 0 when it was not set.
func (s *state) number(name string) uint64 {
	n, _ := strconv.ParseUint(string(s.set[name]), 10, 64) // written by decimal
	return n
}
