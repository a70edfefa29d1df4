package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
)

// Replicas obey the leader with the highest term that they have heard of, and drop what
// those with lower ones say. A coordinator that starts on the folder of the last one
// has a higher term from the start. One on an empty folder, or on an old copy, has
// not: to its replicas it is a leader whose time is over.
//
// It may lead above theirs, but not at once: the other may be alive, with this one
// started beside it by mistake. A replica is connected to one coordinator only, so the
// members of a round are the witnesses: when more than half of those of the last round
// are here, no other coordinator has as many. Two that were started on two copies thus
// never take the members from each other by turns. Until then what is here goes on
// as it is, and people are told.

// foreigner is a replica that has obeyed a leader of a later term. It is not admitted,
// and hears nothing that is said to it but Again.
type foreigner struct {
	hello protocol.Hello
	term  uint64
	seen  time.Time
}

// obeysAnother says whether a replica has obeyed a leader that this coordinator does not
// follow. Two that begin on empty folders, or on copies of one, have the same term.
func (c *Core) obeysAnother(term uint64, leader string) bool {
	return term > c.cfg.Term || term == c.cfg.Term && leader != "" && leader != c.cfg.Instance
}

// farthest is the highest term, and the highest number of a round, that are taken from a
// replica, unless this coordinator is there already: it counts on from there, and must not
// come to what no message may say any more (protocol.Message.Validate).
const farthest = 1 << 47

// tooFar says whether a message speaks of a term or a round that cannot be.
func (c *Core) tooFar(m protocol.Message) bool {
	term, round := m.Term, int64(0)
	if h := m.Hello; h != nil {
		round = h.Round
	}
	if a := m.Recalled; a != nil {
		for _, commit := range a.Commits {
			term, round = max(term, commit.Term), max(round, commit.Round)
		}
	}
	return term > max(farthest, c.cfg.Term) || round > max(farthest, c.course.Last())
}

// isForeign takes note of a message of a replica that has obeyed a later leader.
func (c *Core) isForeign(m protocol.Message) bool {
	if f, known := c.foreign[m.From]; known {
		f.seen = c.now
		c.foreign[m.From] = f
		return true
	}
	if m.Term <= c.cfg.Term {
		return false
	}
	c.askAgain(m.From) // its Hello says whom it was with
	return true
}

// helloOfForeigner notes what a replica says that has obeyed a later leader.
func (c *Core) helloOfForeigner(term uint64, h protocol.Hello) {
	if c.roster.Get(h.ID) != nil {
		c.lost(h.ID, fmt.Sprintf("it obeys another coordinator, of term %d", term))
	}
	_, known := c.foreign[h.ID]
	c.foreign[h.ID] = foreigner{h, term, c.now}
	c.patience.Greeted(c.now)
	c.patience.Came(h.ID)
	if !known {
		here, of := c.witnesses()
		c.report(event.OtherLeader{Replica: event.Replica{Name: h.Name, ID: h.ID}, Term: term, Own: c.cfg.Term, Here: here, Of: of})
	}
	c.takeOver()
}

// isForeigner says whether a replica waits until this coordinator leads above another.
func (c *Core) isForeigner(id string) bool {
	_, foreign := c.foreign[id]
	return foreign
}

// tickForeign forgets those that have fallen silent.
func (c *Core) tickForeign(stood time.Duration) {
	for id, f := range c.foreign {
		f.seen = f.seen.Add(min(stood, c.now.Sub(f.seen)))
		c.foreign[id] = f
		if c.patience.Silent(c.now.Sub(f.seen), false) != "" {
			delete(c.foreign, id)
		}
	}
	c.takeOver()
}

// witnesses are how many members of the last round are here that any foreigner has
// heard of, and how many that round had.
func (c *Core) witnesses() (here, of int) {
	var last foreigner
	for _, f := range c.foreign {
		if f.term > last.term || f.term == last.term && f.hello.Round >= last.hello.Round {
			last = f
		}
	}
	for _, id := range last.hello.Members {
		if _, foreign := c.foreign[id]; foreign || c.roster.Get(id) != nil {
			here++
		}
	}
	return here, len(last.hello.Members)
}

// takeOver begins a term above those of the foreigners as soon as that is right.
func (c *Core) takeOver() {
	if len(c.foreign) == 0 || c.leading {
		return
	}
	if here, of := c.witnesses(); 2*here <= of && of > 0 && !c.cfg.Rebuild {
		return
	}
	for _, f := range c.foreign {
		if c.differs(protocol.Version, f.hello) != nil {
			return
		}
	}
	c.leading = true
	c.do(Lead{Above: c.highest()})
}

// highest is the highest term that a foreigner has obeyed.
func (c *Core) highest() (term uint64) {
	for _, f := range c.foreign {
		term = max(term, f.term)
	}
	return term
}

// led takes the news that a term has begun: whom it is above is admitted now.
func (c *Core) led(term uint64) {
	c.report(event.TookOver{Term: term, Was: c.highest()})
	c.leading, c.cfg.Term = false, term
	for _, id := range slices.Sorted(maps.Keys(c.foreign)) {
		if f := c.foreign[id]; !c.obeysAnother(f.term, f.hello.Leader) {
			c.hello(protocol.Version, f.term, f.hello)
		}
	}
	c.takeOver()
}

// elsewhere says why foreigners are not led, "" when there are none.
func (c *Core) elsewhere() string {
	if len(c.foreign) == 0 {
		return ""
	}
	if c.leading {
		return "waiting for the log to begin a term"
	}
	for _, id := range slices.Sorted(maps.Keys(c.foreign)) {
		h := c.foreign[id].hello
		if d := c.differs(protocol.Version, h); d != nil {
			return fmt.Sprintf("replica %s (%s) belongs to this job under another coordinator, with another %s (%q, here %q): start this coordinator with the settings and the data of that one, or end the replica", h.Name, id, d.Field, d.Got, d.Want)
		}
	}
	here, of := c.witnesses()
	return fmt.Sprintf("replicas obey another coordinator (term %d, this one has %d), and %d of %d members of its last round are here: if it is gone, start them too, or this coordinator with --log rebuild", c.highest(), c.cfg.Term, here, of)
}
