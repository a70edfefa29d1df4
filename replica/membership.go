package replica

import (
	"fmt"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica/criterion"
)

// membership is this replica's part in a round, worked out when the round comes.
type membership struct {
	protocol.Round
	rank   int     // −1: it is none of the members
	order  []int   // groups of all members, by rank: the order of gathered keys
	counts []int   // float32 of keys contributed by each rank
	units  [][]int // by rank: the first group of each unit dealt
}

func newMembership(r protocol.Round, id string, job config.Job) *membership {
	m := &membership{Round: r, rank: -1}
	for rank, member := range r.Members {
		m.order = append(m.order, member.Groups...)
		m.counts = append(m.counts, len(member.Groups)*job.BNGroup*job.Dim)
		if member.ID == id {
			m.rank = rank
		}
	}
	return m
}

// self is this replica as a member.
func (m *membership) self() protocol.Member { return m.Members[m.rank] }

// alone says that there is no other member.
func (m *membership) alone() bool { return len(m.Members) == 1 }

// own are the first groups of this member's units.
func (m *membership) own() []int { return m.units[m.rank] }

// holds says whether a rank holds a shard of the queue in this round.
func (m *membership) holds(rank, shard int) bool {
	return !m.Spread() || slices.Contains(m.Holders[shard], rank)
}

// saves says whether this member takes part when the round's state becomes a
// checkpoint: rank 0 stores it, and of a spread queue the owners send it their
// shards, which all members pass on.
func (m *membership) saves() bool { return m.rank == 0 || m.Spread() }

// splitUnits checks that every member was dealt whole units, of so many
// consecutive groups each, and records where they begin: this member's, and the
// others', which the loss of a spread queue must know.
func (m *membership) splitUnits(atOnce int) error {
	dealt := make([][]int, len(m.Members))
	for rank, member := range m.Members {
		dealt[rank] = member.Groups
	}
	return m.deals(dealt, atOnce)
}

// deals is splitUnits of another deal of groups, by rank: what is computed again
// in an audit.
func (m *membership) deals(dealt [][]int, atOnce int) error {
	m.units = make([][]int, len(m.Members))
	for rank, groups := range dealt {
		name := m.Members[rank].Name
		if len(groups)%atOnce != 0 {
			return fmt.Errorf("round %d deals groups %v to %s, not in units of %d", m.Round.Round, groups, name, atOnce)
		}
		for i, group := range groups {
			if first := groups[i-i%atOnce]; group != first+i%atOnce {
				return fmt.Errorf("round %d deals groups %v to %s, not in units of %d consecutive ones", m.Round.Round, groups, name, atOnce)
			}
		}
		for i := 0; i < len(groups); i += atOnce {
			m.units[rank] = append(m.units[rank], groups[i])
		}
	}
	return nil
}

// keysAt is where this member's keys begin among those of all ranks.
func (m *membership) keysAt() (at int) {
	for _, n := range m.counts[:m.rank] {
		at += n
	}
	return at
}

// rows are the samples of a rank's units in the global batch, with groups of g.
func (m *membership) rows(rank, g, atOnce int) []criterion.Rows {
	rows := make([]criterion.Rows, len(m.units[rank]))
	for i, first := range m.units[rank] {
		rows[i] = criterion.Rows{Lo: first * g, Hi: (first + atOnce) * g}
	}
	return rows
}

// deal is who computes and who holds what, for the loss of a spread queue.
func (m *membership) deal(g, atOnce, after int) criterion.Deal {
	d := criterion.Deal{Rank: m.rank, Holders: m.Holders, After: after}
	for rank, member := range m.Members {
		d.Names = append(d.Names, member.Name)
		d.Units = append(d.Units, m.rows(rank, g, atOnce))
	}
	return d
}
