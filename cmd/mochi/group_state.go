package main

import (
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/quorum"
)

// standbys is what the coordinator that leads has heard of the others.
type standbys struct {
	mu     sync.Mutex
	name   string // of the one that leads
	config string // of the job, "" until it has begun
	last   map[string]standbyHeard
}

type standbyHeard struct {
	protocol.StandingBy
	at time.Time
}

// awayAfter is how long a coordinator that says nothing counts as one that may come back
// with what it has.
const awayAfter = 10 * time.Minute

func newStandbys() *standbys { return &standbys{last: map[string]standbyHeard{}} }

// begin forgets what was heard in an earlier leadership.
func (s *standbys) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.config = name, ""
	clear(s.last)
}

// agreed sets the configuration of the job.
func (s *standbys) agreed(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = text
}

func (s *standbys) hear(b protocol.StandingBy) protocol.GroupAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[b.Name] = standbyHeard{b, time.Now()}
	return protocol.GroupAnswer{Leader: s.name, Config: s.config}
}

// of is what was heard of one, false when nothing was.
func (s *standbys) of(name string) (standbyHeard, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.last[name]
	return h, ok
}

// covered is the last step that the checkpoints of all cover that were there lately.
func (s *standbys) covered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := int64(math.MaxInt64)
	for _, h := range s.last {
		if time.Since(h.at) < awayAfter {
			step = min(step, h.Checkpoint)
		}
	}
	return step
}

// groupState is how the group stands, as this coordinator sees it.
func (g *group) groupState() *protocol.GroupState {
	s := g.node.Status()
	state := &protocol.GroupState{Leader: s.Leader, Trouble: s.Trouble}
	if !s.Since.IsZero() {
		state.Since = s.Since.UTC().Format(time.RFC3339)
	}
	if !s.Majority {
		state.Trouble = strings.TrimPrefix(state.Trouble+"; fewer coordinators than a majority are heard: no commit is possible", "; ")
	}
	var most uint64
	for _, m := range s.Members {
		most = max(most, m.Entries)
	}
	for _, m := range s.Members {
		state.Members = append(state.Members, g.memberState(m, most))
	}
	return state
}

func (g *group) memberState(m quorum.MemberStatus, most uint64) protocol.MemberState {
	st := protocol.MemberState{
		Name: m.Name, Address: m.Join, State: "standby", Step: m.Step, Behind: int64(most - m.Entries), Checkpoint: -1, Trouble: m.Trouble,
	}
	if !m.Heard.IsZero() {
		st.Heard = m.Heard.UTC().Format(time.RFC3339)
	}
	switch {
	case m.Leads:
		st.State = "leader"
	case m.Error != "":
		st.State = "away"
		st.Trouble = strings.TrimPrefix(st.Trouble+"; "+m.Error, "; ")
	}
	if m.Name == g.self.Name {
		st.Checkpoint = g.job.Store.Step()
	} else if h, ok := g.heard.of(m.Name); ok {
		st.Checkpoint = h.Checkpoint
		if h.Troubled != "" {
			st.Trouble = strings.TrimPrefix(st.Trouble+"; "+h.Troubled, "; ")
		}
	}
	return st
}

// withGroup adds the group to the status of the job.
func (g *group) withGroup(s protocol.Status) protocol.Status {
	s.Group = g.groupState()
	return s
}

// addresses are where replicas find whoever leads.
func (g *group) addresses() []string {
	var all []string
	for _, m := range g.members {
		all = append(all, m.Join)
	}
	return all
}

func (g *group) joinAll() string { return strings.Join(g.addresses(), ",") }

// yaml is the configuration, as the group's log has it.
func (g *group) yaml() string {
	text, err := g.job.Config.YAML()
	if err != nil {
		panic(err) // it was written to config.yaml
	}
	return string(text)
}

// quiet is the log of connections between coordinators, of which there is little to say.
func (g *group) quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func joinLines(list []string) string { return strings.Join(list, "\n  ") }
