// Package audit says which BatchNorm groups of a step are computed twice, and
// by whom.
//
// What a group leaves does not depend on who computes it. So wrong arithmetic, of
// a processor, a GPU or memory that gives finite but wrong numbers, shows when a
// second member computes a group too and the two are compared to the bit. Nothing
// else shows it: the sum of all groups is the same on all members, wrong or not,
// and so are their votes. (That the groups' results are added up rightly is another
// matter: allreduce.Check.)
//
// # Which
//
// Time is cut into blocks of N = 1/x steps (config.Job.Audit, rounded). In each
// block every member is audited in one step, with all the groups that it was
// dealt: which step is a hash of the seed, the member's id and the block. So
//
//   - the share of groups that is computed twice is 1/N, over any number of
//     members and groups, and no member and no time is spared;
//   - a member that computes one of its groups wrongly in every step is found
//     within 2·N−1 steps, whichever group it is: 999 by default. One that does so
//     in a share p of its steps is missed by one audit with probability 1−p;
//   - what follows from a period in the training (checkpoints, epochs) is not
//     missed by an audit of the same period.
//
// # By whom
//
// The audited groups are dealt, unit by unit (Rule.Unit groups that one program
// computes, as they are dealt to members), to the other members: to each in
// proportion to what it computes anyway, so that slow members are not burdened
// more than fast ones. All groups of a member at once rather than one at a time
// here and there: the others share them, so that the step takes longer by
// 1/(P−1) of a member's work, once a member and block, instead of a unit's time
// once a unit and block. A member that is alone computes its own again, which
// finds what goes wrong once, not what goes wrong always.
//
// Everybody works the deal out alone: it is a function of the seed, the step and
// the members of the round. A faulty processor does not act on knowing it; audits
// are no guard against a liar by intent.
package audit

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// Rule is how a job is audited. The zero Rule audits nothing.
type Rule struct {
	Seed  uint64
	Every int64 // N, steps of a block; 0: never
	Unit  int   // groups that are dealt together
}

// RuleOf is the rule of a job.
func RuleOf(job config.Job) Rule {
	r := Rule{Seed: job.Seed, Unit: max(1, job.GroupsAtOnce)}
	if job.Audit > 0 {
		r.Every = max(1, int64(math.Round(min(1/job.Audit, math.MaxInt32))))
	}
	return r
}

// Due says whether a member is audited in a step (from 1).
func (r Rule) Due(id string, step int64) bool {
	if r.Every == 0 || step < 1 {
		return false
	}
	block, at := (step-1)/r.Every, (step-1)%r.Every
	return r.hash(id, block)%uint64(r.Every) == uint64(at)
}

// hash mixes the seed with a member and a number.
func (r Rule) hash(id string, n int64) uint64 {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 64), r.Seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	return xxhash.Sum64(append(b, id...))
}

// Deal is who computes what for the audits of one step.
type Deal struct {
	Own   [][]int // by rank: groups dealt to it whose results are compared; all of them, or none
	Again [][]int // by rank: groups that it computes besides, in whole units
}

// Empty says that nothing is computed twice.
func (d Deal) Empty() bool {
	for _, groups := range d.Again {
		if len(groups) > 0 {
			return false
		}
	}
	return true
}

// Deal works out the audits of a step of a round with these members, by rank.
func (r Rule) Deal(step int64, members []protocol.Member) Deal {
	d := Deal{Own: make([][]int, len(members)), Again: make([][]int, len(members))}
	for rank, m := range members {
		if len(m.Groups) == 0 || !r.Due(m.ID, step) {
			continue
		}
		d.Own[rank] = m.Groups
		if len(members) == 1 {
			d.Again[rank] = m.Groups
			continue
		}
		first := int(r.hash(m.ID, ^step) % uint64(len(members))) // who is asked first, of equals
		for lo := 0; lo < len(m.Groups); lo += r.Unit {
			other := r.next(d.Again, members, rank, first)
			d.Again[other] = append(d.Again[other], m.Groups[lo:min(lo+r.Unit, len(m.Groups))]...)
		}
	}
	return d
}

// next is the member that computes one more unit besides: the one that would
// have least to do for it, against what it was dealt, of all but the audited.
func (r Rule) next(again [][]int, members []protocol.Member, audited, first int) (best int) {
	best = -1
	burden := func(rank int) (groups, dealt int) {
		return len(again[rank]) + r.Unit, max(r.Unit, len(members[rank].Groups))
	}
	for i := range members {
		rank := (first + i) % len(members)
		if rank == audited {
			continue
		}
		if best < 0 {
			best = rank
			continue
		}
		groups, dealt := burden(rank)
		least, of := burden(best)
		if groups*of < least*dealt {
			best = rank
		}
	}
	return best
}

// Trial is the deal of a round that only settles a difference: every member
// computes the groups in question again (protocol.Round.Trial).
func Trial(groups []int, members int) Deal {
	d := Deal{Own: make([][]int, members), Again: make([][]int, members)}
	for rank := range d.Again {
		d.Again[rank] = groups
	}
	return d
}
