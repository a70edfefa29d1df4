// Package roster is what a coordinator knows of its replicas: who is admitted,
// in which order they rank, what each is known to hold, and how lively it is.
// It records and answers; it decides nothing and sends nothing.
//
// Nothing here survives the coordinator. One that starts again learns it anew
// from each replica's Hello.
package roster

import (
	"cmp"
	"slices"
	"time"

	"mochi/coordinator/protocol"
)

// Roster is all admitted replicas.
type Roster struct {
	replicas map[string]*Replica
	admitted int // replicas ever admitted
}

// New is a roster without replicas.
func New() *Roster { return &Roster{replicas: map[string]*Replica{}} }

// Get finds a replica by id, nil when it is not admitted.
func (s *Roster) Get(id string) *Replica { return s.replicas[id] }

// Admit adds a replica that nothing is known of but its Hello.
func (s *Roster) Admit(h protocol.Hello, now time.Time) *Replica {
	r := &Replica{arrival: s.admitted, rank: -1, hello: h, seen: now, moved: now, said: now}
	s.admitted++
	s.replicas[h.ID] = r
	return r
}

// Remove strikes a replica off.
func (s *Roster) Remove(r *Replica) { delete(s.replicas, r.ID()) }

// All lists the replicas: those with a rank in the current or their last round
// by it, then the others by arrival.
func (s *Roster) All() []*Replica {
	all := make([]*Replica, 0, len(s.replicas))
	for _, r := range s.replicas {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *Replica) int {
		return cmp.Or(cmp.Compare(uint(a.rank), uint(b.rank)), cmp.Compare(a.arrival, b.arrival)) // rank −1 comes last
	})
	return all
}

// Staying lists those that did not ask to leave, ordered as All.
func (s *Roster) Staying() []*Replica {
	return slices.DeleteFunc(s.All(), (*Replica).Leaving)
}

// Ready lists those that can be members of a round: they have built what it
// needs and did not ask to leave. Ordered as All.
func (s *Roster) Ready() []*Replica {
	return slices.DeleteFunc(s.Staying(), func(r *Replica) bool { return !r.Ready() })
}

// NewRanks gives the members of a new round their ranks, and nobody else one.
func (s *Roster) NewRanks(members []*Replica) {
	for _, r := range s.replicas {
		r.rank = -1
	}
	for rank, r := range members {
		r.enter(rank)
	}
}

// IDs are the ids of all.
func (s *Roster) IDs() map[string]bool {
	ids := map[string]bool{}
	for id := range s.replicas {
		ids[id] = true
	}
	return ids
}

// Gossip lists the gossip addresses of all but one.
func (s *Roster) Gossip(except string) []string {
	var addresses []string
	for _, r := range s.All() {
		if r.hello.Gossip != "" && r.ID() != except {
			addresses = append(addresses, r.hello.Gossip)
		}
	}
	return addresses
}

// Majority groups replicas by a key and separates the largest group, in a tie
// the one with the first replica, from the others.
func Majority(replicas []*Replica, key func(*Replica) string) (majority, others []*Replica) {
	count := map[string]int{}
	for _, m := range replicas {
		count[key(m)]++
	}
	best := ""
	for i, m := range replicas {
		if k := key(m); i == 0 || count[k] > count[best] {
			best = k
		}
	}
	for _, m := range replicas {
		if key(m) == best {
			majority = append(majority, m)
		} else {
			others = append(others, m)
		}
	}
	return majority, others
}
