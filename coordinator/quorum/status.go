package quorum

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"mochi/coordinator/protocol"
)

// Settings are what is replicated besides the commits, as far as it is applied here.
type Settings struct {
	Term   uint64
	Round  int64
	Data   protocol.Data
	Config string
	Step   int64 // of the last commit
}

// Settings returns what is applied here.
func (n *Node) Settings() (out Settings) {
	n.machine.read(func(s *state) {
		out = Settings{Term: s.settings.Term, Round: s.settings.Round, Data: s.settings.Data, Config: s.settings.Config}
		if s.last != nil {
			out.Step = s.last.Step
		}
	})
	return out
}

// Status is how the group stands, as seen from one member.
type Status struct {
	Leader   string    // name, "" when none is known
	Since    time.Time // since when it is so
	Votes    bool      // this one votes; false while a folder that was emptied is filled
	Majority bool      // enough members are heard, this one included
	Trouble  string    // what this member is held up by, "" when by nothing
	Members  []MemberStatus
}

// MemberStatus is how a member stands, as last heard.
type MemberStatus struct {
	Member
	Leads   bool
	Heard   time.Time // zero: never since this node started
	Error   string    // why it was not heard when it was asked last
	Entries uint64    // that it has on its disk
	Applied uint64
	Step    int64            // of the last commit that it has applied
	Lines   map[string]int64 // that its files hold
	Trouble string
}

// Status says how the group stands.
func (n *Node) Status() Status {
	n.noteLeader()
	n.mu.Lock()
	s := Status{Leader: n.leader, Since: n.since, Votes: n.membership.Standing == voting}
	n.mu.Unlock()
	s.Trouble = n.trouble()
	heard := 0
	for _, m := range n.o.Members {
		st := MemberStatus{Member: m, Leads: m.Name == s.Leader}
		a, at, err := n.answer(), time.Now(), error(nil)
		if m.Name != n.o.Name {
			a, at, err = n.asked.of(m.Name)
		}
		if st.Heard = at; err != nil {
			st.Error = err.Error()
		} else {
			heard++
		}
		st.Entries, st.Applied, st.Step, st.Lines, st.Trouble = a.Entries, a.Applied, a.Step, a.Lines, a.Trouble
		s.Members = append(s.Members, st)
	}
	s.Majority = heard > len(n.o.Members)/2
	return s
}

// trouble is what this member is held up by.
func (n *Node) trouble() string {
	n.mu.Lock()
	why, votes, failed := n.why, n.votesHeld, n.failed
	n.mu.Unlock()
	if failed != nil {
		return failed.Error()
	}
	if why != "" {
		return why
	}
	if err := errors.Join(votes, n.store.held(), n.deliver.troubled()); err != nil {
		return err.Error()
	}
	return ""
}

// noteLeader remembers since when who leads.
func (n *Node) noteLeader() {
	name := ""
	if m, ok := n.Leader(); ok {
		name = m.Name
	}
	n.mu.Lock()
	changed := name != n.leader
	if changed {
		n.leader, n.since = name, time.Now()
	}
	n.mu.Unlock()
	switch {
	case changed && name == "":
		n.log.Info("coordinators", "state", "none leads")
	case changed:
		n.log.Info("coordinators", "leader", name)
	}
}

// answer is what this member says of itself.
func (n *Node) answer() answer {
	n.mu.Lock()
	m, r := n.membership, n.raft
	n.mu.Unlock()
	a := answer{
		Standing: m.Standing, Nonce: m.Nonce, Group: m.Group, Founders: m.Founders,
		Lines: n.deliver.lines(), Trouble: n.trouble(),
	}
	a.Checkpoint, a.Arrived = n.o.Follow.Checkpoint()
	_, _, a.Applied = n.machine.grown()
	n.machine.read(func(s *state) {
		if s.last != nil {
			a.Step = s.last.Step
		}
	})
	a.Term, _ = n.votes.GetUint64(currentTerm) // in memory
	if r != nil {
		a.Term, a.Entries = r.CurrentTerm(), r.LastIndex()
		_, id := r.LeaderWithID()
		a.Leader = string(id)
	}
	return a
}

// asked is what the other members said of themselves, and when.
type asked struct {
	node *Node
	mu   sync.Mutex
	last map[string]said
}

type said struct {
	answer answer
	at     time.Time
	err    error // of the last time it was asked
}

func newAsked(n *Node) *asked { return &asked{node: n, last: map[string]said{}} }

// all asks all other members at once, and returns the answers of those that are heard.
func (q *asked) all(ctx context.Context) map[string]answer {
	ctx, cancel := context.WithTimeout(ctx, q.node.o.Heartbeat)
	defer cancel()
	var wait sync.WaitGroup
	var mu sync.Mutex
	heard := map[string]answer{}
	for _, name := range q.node.names {
		if name == q.node.o.Name {
			continue
		}
		wait.Go(func() {
			a, err := q.node.ask(ctx, name, hello{Ask: askState})
			q.note(name, a, err)
			if err == nil {
				mu.Lock()
				heard[name] = a
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return heard
}

func (q *asked) note(name string, a answer, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.last[name]
	if s.err = err; err == nil {
		s.answer, s.at = a, time.Now()
	}
	q.last[name] = s
}

func (q *asked) of(name string) (answer, time.Time, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, ok := q.last[name]
	if !ok {
		return s.answer, s.at, errors.New("it was not asked yet")
	}
	s.answer.Lines = maps.Clone(s.answer.Lines)
	return s.answer, s.at, s.err
}

// askAll asks the others now and then, for Status.
func (n *Node) askAll() {
	tick := time.NewTicker(n.o.Heartbeat)
	defer tick.Stop()
	for {
		if n.membershipNow().Standing != blank { // found asks, too
			n.asked.all(n.ctx)
			n.noteLeader()
		}
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}
