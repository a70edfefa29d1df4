package audit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
)

// members are P members with the groups of a fair deal in units.
func members(world, groups, unit int) []protocol.Member {
	list := make([]protocol.Member, world)
	units := groups / unit
	for rank := range list {
		list[rank].ID = fmt.Sprintf("m%d-%d", rank, world)
		for g := rank * units / world * unit; g < (rank+1)*units/world*unit; g++ {
			list[rank].Groups = append(list[rank].Groups, g)
		}
	}
	return list
}

func Example() {
	rule := audit.Rule{Seed: 3, Every: 4, Unit: 1}
	for step := int64(1); step <= 4; step++ {
		d := rule.Deal(step, members(3, 6, 1))
		fmt.Println("step", step, "of", d.Own, "again", d.Again)
	}
	// Output:
	// step 1 of [[0 1] [] []] again [[] [0] [1]]
	// step 2 of [[] [2 3] []] again [[3] [] [2]]
	// step 3 of [[] [] []] again [[] [] []]
	// step 4 of [[] [] [4 5]] again [[4] [5] []]
}

// Every member is audited exactly once in every block, so that no two audits of
// it are further apart than two blocks less a step; within a block all steps are
// alike, over members, blocks and seeds (χ² of 4.5 standard deviations).
func TestEveryMemberInEveryBlock(t *testing.T) {
	const every, blocks, ids = 50, 40, 25
	where := make([]int, every)
	for seed := range uint64(4) {
		rule := audit.Rule{Seed: seed, Every: every, Unit: 1}
		for m := range ids {
			id, last := fmt.Sprintf("replica-%d", m), int64(0)
			for block := range int64(blocks) {
				due := 0
				for step := block*every + 1; step <= (block+1)*every; step++ {
					if !rule.Due(id, step) {
						continue
					}
					due++
					where[step-block*every-1]++
					if last > 0 && step-last > 2*every-1 {
						t.Errorf("%s: %d steps between two audits", id, step-last)
					}
					last = step
				}
				if due != 1 {
					t.Fatalf("seed %d, %s, block %d: audited %d times", seed, id, block, due)
				}
			}
		}
	}
	mean, chi2 := 4.0*blocks*ids/every, 0.0
	for _, n := range where {
		chi2 += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	if free := float64(every - 1); math.Abs(chi2-free) > 4.5*math.Sqrt(2*free) {
		t.Errorf("χ² = %.1f of %.0f: the steps of a block are not alike: %v", chi2, free, where)
	}
}

// Members are not audited together more often than chance has it, nor is a
// member at the same place of each block.
func TestAuditsAreIndependent(t *testing.T) {
	rule := audit.Rule{Seed: 9, Every: 20, Unit: 1}
	place := func(id string, block int64) int64 {
		for at := range rule.Every {
			if rule.Due(id, block*rule.Every+at+1) {
				return at
			}
		}
		return -1
	}
	const n = 4000
	together, repeated := 0, 0
	for block := range int64(n) {
		if place("a", block) == place("b", block) {
			together++
		}
		if place("a", block) == place("a", block+1) {
			repeated++
		}
	}
	for what, got := range map[string]int{"two members at once": together, "the same place again": repeated} {
		p := 1 / float64(rule.Every)
		if mean, sd := n*p, math.Sqrt(n*p*(1-p)); math.Abs(float64(got)-mean) > 4.5*sd {
			t.Errorf("%s: %d times, want %.0f ± %.0f", what, got, mean, sd)
		}
	}
}

// What is computed besides is what is audited: every group of an audited member
// once, in whole units, by another member (by itself when it is alone); and in
// proportion to what members were dealt, as evenly as units allow.
func TestDealOfAudits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		unit := 1 + rng.IntN(3)
		world := 1 + rng.IntN(6)
		list := members(world, unit*(rng.IntN(20)+1), unit)
		rule := audit.Rule{Seed: rng.Uint64(), Every: 1 + rng.Int64N(3), Unit: unit}
		step := 1 + rng.Int64N(100)
		d := rule.Deal(step, list)
		want, got := []int{}, []int{}
		for rank, m := range list {
			own := rule.Due(m.ID, step) && len(m.Groups) > 0
			if own != (len(d.Own[rank]) > 0) || own && !slices.Equal(d.Own[rank], m.Groups) {
				t.Fatalf("rank %d of %v: compared are %v", rank, list, d.Own)
			}
			want, got = append(want, d.Own[rank]...), append(got, d.Again[rank]...)
			for i, g := range d.Again[rank] {
				if first := d.Again[rank][i-i%unit]; g != first+i%unit || first%unit != 0 {
					t.Fatalf("%v splits a unit of %d", d.Again[rank], unit)
				}
				if world > 1 && slices.Contains(m.Groups, g) {
					t.Fatalf("rank %d audits its own group %d", rank, g)
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || d.Empty() != (len(got) == 0) {
			t.Fatalf("of %v computed again: %v, want %v", list, d.Again, want)
		}
		if again := rule.Deal(step, list); !slices.EqualFunc(again.Again, d.Again, slices.Equal) {
			t.Fatal("the deal is not a function of its arguments")
		}
	}
}

// A slow member, which was dealt less, audits less.
func TestSlowMembersAuditLess(t *testing.T) {
	list := []protocol.Member{{ID: "a", Groups: span(0, 12)}, {ID: "b", Groups: span(12, 14)}, {ID: "c", Groups: span(14, 24)}, {ID: "d"}}
	rule := audit.Rule{Seed: 3, Every: 60, Unit: 1}
	var count [4]int
	audited := 0
	for step := int64(1); step <= 6000; step++ {
		if !rule.Due("a", step) || rule.Due("b", step) || rule.Due("c", step) {
			continue
		}
		audited++
		for rank, groups := range rule.Deal(step, list).Again {
			count[rank] += len(groups)
		}
	}
	if audited < 50 || count[0] != 0 {
		t.Fatalf("%d audits of a: %v", audited, count)
	}
	for rank, weight := range map[int]float64{1: 2, 2: 10, 3: 1} {
		share := float64(count[rank]) / float64(12*audited)
		if math.Abs(share-weight/13) > 1.0/13 {
			t.Errorf("rank %d does %.2f of the audits of a, want %.2f", rank, share, weight/13)
		}
	}
}

func span(lo, hi int) (list []int) {
	for g := lo; g < hi; g++ {
		list = append(list, g)
	}
	return list
}

// The share of groups that is computed twice is 1/N to the group, over whole
// blocks, whatever the members, and the burden is spread over all of them.
func TestShareOfAudits(t *testing.T) {
	for _, c := range []struct{ world, groups, unit int }{{1, 4, 1}, {2, 8, 1}, {3, 8, 2}, {8, 64, 1}, {8, 8, 1}} {
		rule := audit.Rule{Seed: 5, Every: 100, Unit: c.unit}
		list := members(c.world, c.groups, c.unit)
		total, by := 0, make([]int, c.world)
		const blocks = 60
		for step := int64(1); step <= blocks*rule.Every; step++ {
			for rank, groups := range rule.Deal(step, list).Again {
				total += len(groups)
				by[rank] += len(groups)
			}
		}
		if total != blocks*c.groups {
			t.Errorf("%+v: %d groups computed twice in %d blocks", c, total, blocks)
		}
		for rank, n := range by {
			share, fair := float64(n)/float64(total), float64(len(list[rank].Groups))/float64(c.groups)
			if c.world > 1 && math.Abs(share-fair) > 0.12 {
				t.Errorf("%+v: rank %d does %.2f of it, and was dealt %.2f of the groups", c, rank, share, fair)
			}
		}
	}
}

// At the default a member that computes one of its groups wrongly in every step
// is audited within 999 steps from whenever it begins, with 2, 3 and 8 members
// and any number of groups; a second member computes that very group.
func TestFoundWithinTheBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	worst := int64(0)
	for _, world := range []int{2, 3, 8} {
		for _, groups := range []int{world, 4 * world, 64} {
			for trial := range 40 {
				rule := audit.Rule{Seed: rng.Uint64(), Every: 500, Unit: 1}
				list := members(world, groups, 1)
				liar, begins := rng.IntN(world), 1+rng.Int64N(1e6)
				found := int64(0)
				for step := begins; found == 0 && step < begins+2000; step++ {
					if !rule.Due(list[liar].ID, step) {
						continue
					}
					// Another group is wrong in each step.
					wrong := list[liar].Groups[rng.IntN(len(list[liar].Groups))]
					for rank, again := range rule.Deal(step, list).Again {
						if rank != liar && slices.Contains(again, wrong) {
							found = step - begins + 1
						}
					}
				}
				if found == 0 || found > 999 {
					t.Errorf("%d members, %d groups, trial %d: found after %d steps", world, groups, trial, found)
				}
				worst = max(worst, found)
			}
		}
	}
	t.Logf("at worst after %d steps", worst)
}

// Without audits there are none.
func TestNoAudits(t *testing.T) {
	var rule audit.Rule
	for step := range int64(2000) {
		if rule.Due("a", step) || !rule.Deal(step, members(3, 6, 1)).Empty() {
			t.Fatal("an audit")
		}
	}
	if (audit.Rule{Every: 1}).Due("a", 0) {
		t.Error("there is no step 0")
	}
}
