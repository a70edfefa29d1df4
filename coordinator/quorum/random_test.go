package quorum

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
)

var (
	seeds    = flag.Int("quorum.seeds", 6, "how many random histories")
	seed     = flag.Uint64("quorum.seed", 1, "the first of them")
	historyN = flag.Int("quorum.ops", 400, "how many things happen in each")
)

// model is what a group must hold, by its acknowledgements alone.
type model struct {
	w     *world
	acked map[string]protocol.Commit // by digest
	tried map[string]int64           // step by digest
	head  protocol.Commit            // the acknowledged commit of the highest step
	lines []string                   // acknowledged
	told  map[string]bool            // lines that were given to a leader
	term  uint64
	round int64
	note  string
	n     int
	lost  map[string]bool // members whose folder was emptied and that do not vote yet
}

// TestRandom lets everything happen to groups: crashes, cuts, disks that stand still or
// are full, folders that are emptied, leaders that do not know that they are none. What
// was acknowledged is there at the end, once and in order, on every member.
func TestRandom(t *testing.T) {
	for i := range *seeds {
		s := *seed + uint64(i)
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				size := 3
				if s%4 == 3 {
					size = 5
				}
				w := newWorld(t, size, s)
				m := &model{
					w: w, acked: map[string]protocol.Commit{}, tried: map[string]int64{}, told: map[string]bool{}, lost: map[string]bool{},
				}
				for _, member := range w.members {
					if err := w.run(member.Name); err != nil {
						t.Fatal(err)
					}
				}
				for i := 0; i < *historyN && !t.Failed(); i++ {
					m.happen()
				}
				m.settle()
				w.end()
				w.logged.dump(t)
			})
		})
	}
}

// happen lets one thing happen.
func (m *model) happen() {
	w := m.w
	name := w.members[w.rng.IntN(len(w.members))].Name
	switch at := w.rng.IntN(100); {
	case at < 60:
		m.write()
	case at < 66:
		if w.node(name) != nil {
			w.crash(name)
		}
	case at < 80:
		m.start(name)
	case at < 84:
		other := w.members[w.rng.IntN(len(w.members))].Name
		if w.cut(name, other); w.rng.IntN(2) == 0 {
			w.cut(other, name)
		}
	case at < 90:
		w.heal()
	case at < 93:
		if w.node(name) != nil { // Start waits for a disk
			w.fault(name, fault{stands: w.rng.IntN(2) == 0, full: w.rng.IntN(2) == 0})
		}
	case at < 97:
		for _, member := range w.members {
			w.fault(member.Name, fault{})
		}
	case at < 98:
		m.empty(name)
	default:
		if l := w.leadership(); l != nil {
			ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
			_ = l.Resign(ctx) // it may have nobody to hand over to
			cancel()
		}
	}
	time.Sleep(time.Duration(w.rng.IntN(400)) * time.Millisecond)
}

// start starts a member that does not run; it must be able to, unless its disk cannot.
func (m *model) start(name string) {
	if m.w.node(name) != nil {
		return
	}
	if err := m.w.run(name); err != nil {
		var damaged *DamagedError
		if errors.As(err, &damaged) || m.w.faults[name] == (fault{}) {
			m.w.t.Errorf("start %s: %v", name, err)
		}
	}
}

// empty removes a member's folder, if the others can do without it.
func (m *model) empty(name string) {
	for lost := range m.lost {
		if n := m.w.node(lost); n != nil && n.Status().Votes {
			delete(m.lost, lost)
		}
	}
	if len(m.lost) > 0 {
		return
	}
	for _, member := range m.w.members { // it is not known whether one that does not run has joined yet
		if n := m.w.node(member.Name); n == nil || !n.Status().Votes {
			return
		}
	}
	m.w.crash(name)
	m.w.empty(name, m.w.rng.IntN(2) == 0)
	m.lost[name] = true
}

// write writes something as a leader, or as one that was.
func (m *model) write() {
	w := m.w
	l := w.leadership()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(200+w.rng.IntN(4000))*time.Millisecond)
	defer cancel()
	m.n++
	switch w.rng.IntN(10) {
	case 0:
		m.lead(ctx, l)
	case 1:
		if err := l.SaveRound(ctx, m.round+1); err == nil {
			m.round++
		}
	case 2:
		text := fmt.Sprint("note ", m.n)
		if err := l.SaveNote(ctx, "n", text); err == nil {
			m.note = text
		} else if l.under >= m.newest() {
			m.note = "" // it may or may not be there
		}
	case 3, 4:
		m.line(ctx, l)
	case 5:
		if err := l.Forget(ctx, m.head.Step-1); err != nil && !errors.Is(err, coordinator.ErrFenced) && ctx.Err() == nil {
			w.t.Logf("forget: %v", err)
		}
	default:
		m.append(ctx, l)
	}
}

func (m *model) newest() (under uint64) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	for _, l := range m.w.led {
		under = max(under, l.under)
	}
	return under
}

// lead begins a term: it is above all that were begun.
func (m *model) lead(ctx context.Context, l *Leadership) {
	term, err := l.Lead(ctx, 0)
	if err != nil {
		return
	}
	if term <= m.term {
		m.w.t.Errorf("term %d after %d", term, m.term)
	}
	m.term = term
}

func (m *model) line(ctx context.Context, l *Leadership) {
	var lines []string
	for i := range 1 + m.w.rng.IntN(3) {
		text := fmt.Sprint("line ", m.n, ".", i)
		l.Line("log", []byte(text))
		lines, m.told[text] = append(lines, text), true
	}
	if l.Flush(ctx) == nil {
		m.lines = append(m.lines, lines...)
	}
}

// append appends a commit behind what this leader believes to be the last one.
func (m *model) append(ctx context.Context, l *Leadership) {
	last, _, err := l.Last(ctx)
	if err != nil {
		return
	}
	c := next(last, fmt.Sprint("op", m.n, "-"))
	m.tried[c.Digest] = c.Step
	if err := l.Append(ctx, c); err != nil {
		return
	}
	if c.Step <= m.head.Step {
		m.w.t.Errorf("commit %d was acknowledged after commit %d", c.Step, m.head.Step)
	}
	m.acked[c.Digest], m.head = c, c
	m.w.mu.Lock()
	m.w.head = c.Step
	m.w.mu.Unlock()
}

// settle ends all faults, and compares what all members hold with what was acknowledged.
func (m *model) settle() {
	w := m.w
	w.heal()
	for _, member := range w.members {
		w.fault(member.Name, fault{})
	}
	for _, member := range w.members {
		m.start(member.Name)
	}
	if w.t.Failed() {
		return
	}
	var last protocol.Commit
	written := func() bool {
		l := w.leadership()
		if l == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		before, _, err := l.Last(ctx)
		if err != nil {
			return false
		}
		last = next(before, "end")
		l.Line("log", []byte("end"))
		m.told["end"] = true
		return l.Append(ctx, last) == nil && l.Flush(ctx) == nil
	}
	m.within(5*time.Minute, "a commit when all is well", written)
	m.within(5*time.Minute, "all members hold all", func() bool {
		for _, member := range w.members {
			n, f := w.node(member.Name), w.followers[member.Name].all("log")
			if !n.Status().Votes || n.Settings().Step != last.Step || len(f) == 0 || f[len(f)-1] != "end" {
				return false
			}
		}
		return true
	})
	if !w.t.Failed() {
		m.compare()
	}
}

// within waits for a condition, on virtual time.
func (m *model) within(limit time.Duration, what string, ok func() bool) {
	for start := time.Now(); !ok() && !m.w.t.Failed(); time.Sleep(100 * time.Millisecond) {
		if time.Since(start) < limit {
			continue
		}
		for _, member := range m.w.members {
			m.w.t.Logf("%s: %+v", member.Name, m.w.node(member.Name).Status())
		}
		m.w.t.Errorf("never: %s", what)
	}
}

// compare looks at what the members hold.
func (m *model) compare() {
	w, t := m.w, m.w.t
	var first []protocol.Commit
	for _, member := range w.members {
		var all []protocol.Commit
		var s settings
		w.node(member.Name).machine.read(func(st *state) {
			s = st.settings
			for _, body := range st.commits {
				c, err := decodeCommit(body)
				if err != nil {
					t.Error(err)
				}
				all = append(all, c)
			}
		})
		if err := consecutive(all); err != nil {
			t.Errorf("%s: %v", member.Name, err)
		}
		if first == nil {
			first = all
		} else if !slices.EqualFunc(first, all, func(a, b protocol.Commit) bool { return a.Chain == b.Chain }) {
			t.Errorf("%s holds another history than %s", member.Name, w.members[0].Name)
		}
		if s.Round < m.round || s.Term < m.term || m.note != "" && s.Notes["n"] != m.note {
			t.Errorf("%s: round %d of %d, term %d of %d, note %q of %q", member.Name, s.Round, m.round, s.Term, m.term, s.Notes["n"], m.note)
		}
		m.compareLines(member.Name)
	}
	there := map[string]int{}
	for _, c := range first {
		there[c.Digest]++
	}
	for digest, c := range m.acked {
		if there[digest] != 1 && c.Step > first[0].Step-1 {
			t.Errorf("commit %d (%s) was acknowledged and is there %d times", c.Step, digest, there[digest])
		}
	}
	t.Logf("%d commits, %d acknowledged, %d lines, %d leaderships, %d snapshots at %s",
		len(first), len(m.acked), len(m.lines), len(w.led), w.snapshots(w.members[0].Name), w.members[0].Name)
}

// compareLines: those acknowledged are there in their order, each once.
func (m *model) compareLines(name string) {
	all := m.w.followers[name].all("log")
	seen := map[string]bool{}
	rest := m.lines
	for _, text := range all {
		if seen[text] && text != "end" || !m.told[text] {
			m.w.t.Errorf("%s: line %q is there twice, or nobody wrote it", name, text)
		}
		seen[text] = true
		if len(rest) > 0 && rest[0] == text {
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		m.w.t.Errorf("%s: line %q was acknowledged and is not there, or not in its place", name, rest[0])
	}
}
