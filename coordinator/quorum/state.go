package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol"
)

// settings are what is replicated besides commits and lines.
type settings struct {
	Term   uint64            `json:"term"`
	Round  int64             `json:"round"`
	Data   protocol.Data     `json:"data"`
	Config string            `json:"config"`
	Notes  map[string]string `json:"notes,omitempty"` // never changed in place
}

// state is what the entries up to one of them come to. It is the same on every member:
// apply has no clock, no chance and no way to fail for a while.
type state struct {
	index    uint64 // of the last entry applied
	under    uint64 // raft's term of it
	settings settings
	base     int64            // the step before the first commit
	commits  [][]byte         // JSON, of step base+1 and so on; never changed in place
	last     *protocol.Commit // the last of them

	staged     [][]byte         // of an adoption whose end has not come yet
	lines      map[string]int64 // so many of each file
	checkpoint *Checkpoint
	over       *Outcome
	overAt     uint64            // index of the entry that said so
	admitted   map[string]string // members that got their vote back: nonce by name
}

func newState() *state {
	return &state{lines: map[string]int64{}, admitted: map[string]string{}}
}

// errDiverged: what the leader took for right is not right here, so this member's
// history is another one.
var errDiverged = errors.New("the history of this member is another than the leader's")

// apply carries out an entry that was committed in a term of raft. It returns what the
// follower is to be told. The error is for whoever made the entry, unless it is
// errDiverged or errEntry: then this member cannot go on.
func (s *state) apply(term uint64, e entry) (value uint64, told []item, err error) {
	if e.under != term && e.kind != kindBegin && e.kind != kindAdmit {
		return 0, nil, coordinator.ErrFenced // it waited while another led
	}
	parse := func(to any) bool {
		if bad := json.Unmarshal(e.body, to); bad != nil {
			err = fmt.Errorf("%w: kind %d: %w", errEntry, e.kind, bad)
		}
		return err == nil
	}
	switch e.kind {
	case kindBegin:
		s.staged = nil
		return term, []item{{begin: term, counts: maps.Clone(s.lines)}}, nil
	case kindLead:
		var lead leadEntry
		if parse(&lead) {
			s.settings.Term = max(s.settings.Term, lead.Above) + 1
		}
		return s.settings.Term, nil, err
	case kindCommit:
		return 0, nil, s.commit(e.body)
	case kindAdopt:
		var a adoptEntry
		if parse(&a) {
			err = s.stage(a)
		}
	case kindForget:
		var forget stepEntry
		if parse(&forget) {
			s.forget(forget.Step)
		}
	case kindRound:
		var r roundEntry
		if parse(&r) {
			s.settings.Round = max(s.settings.Round, r.Round)
		}
	case kindData:
		parse(&s.settings.Data)
	case kindConfig:
		var c configEntry
		if parse(&c) && c.Text != s.settings.Config {
			s.settings.Config = c.Text
			told = []item{{config: c.Text}}
		}
	case kindNote:
		var n noteEntry
		if parse(&n) {
			s.note(n)
		}
	default:
		told, err = s.tell(e, parse)
	}
	return 0, told, err
}

// tell carries out what the follower is told of.
func (s *state) tell(e entry, parse func(any) bool) (told []item, err error) {
	switch e.kind {
	case kindLines:
		lines, err := decodeLines(e.body)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			s.lines[l.file]++
			told = append(told, item{line: l, n: s.lines[l.file]})
		}
	case kindHeld:
		var held heldEntry
		if parse(&held) && len(s.lines) == 0 {
			maps.Copy(s.lines, held.Lines)
			told = []item{{begin: e.under, counts: maps.Clone(s.lines)}}
		}
	case kindStored:
		var c Checkpoint
		if parse(&c) {
			s.checkpoint = &c
			told = []item{{stored: &c, counts: maps.Clone(s.lines)}}
		}
	case kindOver:
		var o Outcome
		if parse(&o) && s.over == nil {
			s.over, s.overAt = &o, s.index+1
			told = []item{{over: &o, counts: maps.Clone(s.lines)}}
		}
	case kindReopen:
		s.over, s.overAt = nil, 0
	case kindAdmit:
		var a admitEntry
		if parse(&a) {
			s.admitted[a.Name] = a.Nonce
		}
	default:
		return nil, fmt.Errorf("%w: kind %d is not known: a later build of mochi may have made it", errEntry, e.kind)
	}
	return told, nil
}

// commit takes the next commit, or the last one once more.
func (s *state) commit(body []byte) error {
	c, err := decodeCommit(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errEntry, err)
	}
	if s.last != nil {
		if same(c, *s.last) {
			return nil // its answer was lost
		}
		if err := c.Follows(*s.last); err != nil {
			return fmt.Errorf("%w: %w", errDiverged, err)
		}
	} else {
		s.base = c.Step - 1
	}
	s.commits, s.last = append(s.commits, body), &c
	return nil
}

func same(a, b protocol.Commit) bool {
	return a.Step == b.Step && a.Digest == b.Digest && a.Chain == b.Chain
}

// stage takes a part of an adoption; with the last part it happens.
func (s *state) stage(a adoptEntry) error {
	if a.First {
		s.staged = nil
	}
	for _, c := range a.Commits {
		s.staged = append(s.staged, c)
	}
	if a.More {
		return nil
	}
	bodies := s.staged
	s.staged = nil
	return s.adopt(bodies)
}

// adopt puts commits in place of all of their steps and later ones.
func (s *state) adopt(bodies [][]byte) error {
	commits := make([]protocol.Commit, len(bodies))
	for i, body := range bodies {
		var err error
		if commits[i], err = decodeCommit(body); err != nil {
			return fmt.Errorf("%w: %w", errEntry, err)
		}
	}
	if err := consecutive(commits); err != nil {
		return fmt.Errorf("%w: %w", errDiverged, err)
	}
	if len(commits) == 0 {
		return nil
	}
	first := commits[0]
	keep := first.Step - 1 - s.base // commits that stay
	if keep <= 0 || keep > int64(len(s.commits)) || !s.followedBy(keep, first) {
		keep, s.base, s.commits = 0, first.Step-1, nil
	}
	s.commits = append(s.commits[:keep:keep], bodies...)
	s.last = &commits[len(commits)-1]
	return nil
}

// consecutive says whether commits are a history in one piece.
func consecutive(commits []protocol.Commit) error {
	for i := 1; i < len(commits); i++ {
		if err := commits[i].Follows(commits[i-1]); err != nil {
			return err
		}
	}
	return nil
}

// followedBy says whether a commit can stand behind the first so many.
func (s *state) followedBy(keep int64, next protocol.Commit) bool {
	before, err := decodeCommit(s.commits[keep-1])
	return err == nil && next.Follows(before) == nil
}

// forgettable is how many commits up to a step are let go of: from commitlog.Keep on it
// is worth it.
func (s *state) forgettable(step int64) int64 {
	if n := min(step-s.base, int64(len(s.commits))-commitlog.Keep); n >= commitlog.Keep {
		return n
	}
	return 0
}

// forget lets go of commits up to a step.
func (s *state) forget(step int64) {
	if n := s.forgettable(step); n > 0 {
		s.base += n
		s.commits = append([][]byte(nil), s.commits[n:]...)
	}
}

func (s *state) note(n noteEntry) {
	notes := maps.Clone(s.settings.Notes)
	if notes == nil {
		notes = map[string]string{}
	}
	if notes[n.Name] = n.Text; n.Text == "" {
		delete(notes, n.Name)
	}
	s.settings.Notes = notes
}

// after are the commits of later steps, as they are kept.
func (s *state) after(step int64) [][]byte {
	from := min(max(step-s.base, 0), int64(len(s.commits)))
	return s.commits[from:len(s.commits):len(s.commits)]
}
