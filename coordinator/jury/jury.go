// Package jury finds out who computed wrongly. It is told what members say that
// a group's result is (protocol.Recount), and names whose differs. It is pure:
// it knows no clock, sends nothing, and evicts nobody.
//
// # A case
//
// In an audited step two members computed a group (package audit). Where their
// results differ, one of them is wrong, and nobody can tell which. So the step is
// not committed, and a trial follows: a round without a step, in which all members
// compute the groups in question again, from the same state.
//
//   - A member whose results of the same group differ from each other is wrong: a
//     sound one computes the same bits each time.
//   - Of the others, those are wrong whose result is not that of most; most are at
//     least two. All may be of one mind in the trial: then the fault was a passing
//     one, and who said otherwise before the trial had it.
//   - Where as many say that a result is a number as say that it is infinite or NaN,
//     it is the number: a sound member does not find one where there is none.
//   - Of a trial with one member nothing follows but that it contradicts itself.
//   - When that leaves nobody, nobody is named: an engine that does not compute the
//     same twice looks like that.
//   - Two members that stick to different results cannot be told apart. A third
//     member must decide; until one comes the job waits (Awaits).
//
// A group's result has two parts. That of its own keys follows from the state
// alone. That of its queries follows from the keys of the whole batch, which
// another member's fault may have changed: every member says with a digest which
// keys it had, and only what follows from the same ones is compared.
package jury

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mochi/coordinator/protocol"
)

// NotFinite stands for a result with a NaN or an infinity.
const NotFinite = protocol.NotFinite

// Said is what one member said in a step or in a trial.
type Said struct {
	ID       string             `json:"id"`
	Name     string             `json:"name"`
	Keys     string             `json:"keys"` // digest of the keys of the whole batch
	Recounts []protocol.Recount `json:"recounts,omitempty"`
	Expected []int              `json:"expected,omitempty"` // groups that it was to compute; one that it says nothing of differs from all
	Partial  bool               `json:"partial,omitempty"`  // but for this word, which need not be of all parts
}

// Jury keeps what is known from step to step, and from one coordinator to the next
// (Memory).
type Jury struct {
	changed      bool // since it was last asked
	done, failed int
	sound        map[string]int64 // by id: the last step in which its own groups were compared and right
	caseOf       *inquiry         // nil: none
	tries        int              // trials in a row of more than two members that settled nothing
	banned       []banned
}

// inquiry is a difference that is not settled.
type inquiry struct {
	Step      int64    `json:"step"`
	Groups    []int    `json:"groups"`
	Before    []Said   `json:"before,omitempty"`
	Undecided []string `json:"undecided,omitempty"` // the two that a trial could not tell apart, by id
}

// banned is a member that was left out.
type banned struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Why    string `json:"why"`
	ByName bool   `json:"by_name"`
}

// New is a jury without a case.
func New() *Jury { return &Jury{sound: map[string]int64{}} }

// Counts are how many comparisons were made, and how many of them differed.
func (j *Jury) Counts() (done, failed int) { return j.done, j.failed }

// Sound is the last step in which a member's own groups were compared and right,
// 0: none.
func (j *Jury) Sound(id string) int64 { return j.sound[id] }

// Hear compares what the members of a step said: it returns the groups on which
// they differ, ascending.
func (j *Jury) Hear(step int64, said []Said, own map[string]bool) (differ []int) {
	count, results := map[part]int{}, map[part]map[string]bool{}
	for _, s := range said {
		for p, values := range s.by() {
			if results[p] == nil {
				results[p] = map[string]bool{}
			}
			for _, v := range values {
				count[p]++
				results[p][v] = true
			}
		}
	}
	for p, different := range results {
		if count[p] > 1 && !p.key {
			j.done++
		}
		if len(different) > 1 {
			differ = append(differ, p.group)
		}
	}
	slices.Sort(differ)
	differ = slices.Compact(differ)
	j.failed += len(differ)
	if len(differ) == 0 {
		for id := range own {
			j.sound[id] = step
		}
	}
	return differ
}

// part is one of the two parts of a group's result.
type part struct {
	group int
	key   bool
}

// by is what was said of each part: digests, after a blank, and before it what
// they follow from. One is "" where something should have been said and was not.
func (s Said) by() map[part][]string {
	by := map[part][]string{}
	say := func(p part, from, digest string) {
		if digest != "" && slices.Contains(s.Expected, p.group) { // what nobody asked for counts for nothing
			by[p] = append(by[p], from+" "+digest)
		}
	}
	for _, r := range s.Recounts {
		say(part{r.Group, true}, "", r.Key)
		say(part{r.Group, false}, s.Keys, r.Query)
	}
	for _, g := range s.Expected {
		for _, p := range []part{{g, true}, {g, false}} {
			if by[p] == nil && !s.Partial {
				by[p] = []string{" "}
			}
		}
	}
	return by
}

// Open begins a case: groups of a step that a trial must settle, and what was
// said of them so far.
func (j *Jury) Open(step int64, groups []int, said []Said) {
	j.caseOf, j.changed = &inquiry{Step: step, Groups: groups, Before: said}, true
}

// Accuse opens a case, or adds to that of the step, about groups of a member that
// says itself that its results are not finite.
func (j *Jury) Accuse(step int64, groups []int, s Said) {
	if j.Trial(step) == nil {
		j.Open(step, nil, nil)
	}
	for _, g := range groups {
		if !slices.Contains(j.caseOf.Groups, g) {
			j.caseOf.Groups = append(j.caseOf.Groups, g)
		}
	}
	slices.Sort(j.caseOf.Groups)
	j.caseOf.Before, j.changed = append(j.caseOf.Before, s), true
}

// Close ends the case, if there is one.
func (j *Jury) Close() {
	j.changed = j.changed || j.caseOf != nil
	j.caseOf, j.tries = nil, 0
}

// Trial is which groups all members compute again before a step is run; none
// when there is no case of that step. A case of another step is closed: the job
// has gone back, or on.
func (j *Jury) Trial(step int64) []int {
	if j.caseOf == nil {
		return nil
	}
	if j.caseOf.Step != step {
		j.Close()
		return nil
	}
	return j.caseOf.Groups
}

// Awaits says whether a trial of these members would settle nothing: they are the
// two that the last one could not tell apart.
func (j *Jury) Awaits(step int64, ids []string) bool {
	if j.Trial(step) == nil {
		return false
	}
	two := j.caseOf.Undecided
	return len(two) == 2 && len(ids) == 2 && slices.Contains(two, ids[0]) && slices.Contains(two, ids[1])
}

// Odd is a member that computed a group wrongly.
type Odd struct {
	ID, Name  string
	Group     int
	Got, Want string // Want "": it contradicts itself
	Agree     int    // members of one mind against it
}

// Verdict is what a trial led to.
type Verdict struct {
	Odd       []Odd
	Undecided []int // groups on which members stick to different results
	Enough    bool  // it was so too often, with more than two members
	NotFinite bool  // nobody is wrong: the result is not finite
}

// Judge settles the case by what the members of its trial said. It closes the
// case unless something is undecided.
func (j *Jury) Judge(trial []Said) (v Verdict) {
	if j.caseOf == nil {
		return v
	}
	keys := most(trial, func(s Said) string { return s.Keys })
	same := slices.DeleteFunc(slices.Clone(j.caseOf.Before), func(s Said) bool { return s.Keys != keys })
	notFinite := false
	for _, group := range j.caseOf.Groups {
		decided := true
		for _, p := range []part{{group, true}, {group, false}} {
			before := same
			if p.key {
				before = j.caseOf.Before
			}
			odd, truth, agreed := verdict(p, trial, before)
			for _, o := range odd {
				if !slices.ContainsFunc(v.Odd, func(other Odd) bool { return other.ID == o.ID }) {
					v.Odd = append(v.Odd, o)
				}
			}
			decided = decided && agreed
			notFinite = notFinite || agreed && digest(truth) == NotFinite
		}
		if !decided {
			v.Undecided = append(v.Undecided, group)
		}
	}
	if len(v.Odd) >= len(trial) && len(trial) > 1 { // nobody is left to be right: the engine is not exact, or nearly all are broken
		v.Odd, v.Undecided = nil, slices.Clone(j.caseOf.Groups)
	}
	v.NotFinite = notFinite && len(v.Odd) == 0 && len(v.Undecided) == 0
	if len(v.Odd) > 0 || len(v.Undecided) == 0 {
		j.Close()
		return v
	}
	j.caseOf.Undecided, j.changed = nil, true
	if len(trial) == 2 {
		j.caseOf.Undecided = []string{trial[0].ID, trial[1].ID}
		return v
	}
	j.tries++
	v.Enough = j.tries >= 3
	return v
}

// verdict names who is wrong about one part of a group. truth is what most say.
func verdict(p part, trial, before []Said) (odd []Odd, truth string, decided bool) {
	said, names := map[string][]string{}, map[string]string{} // by id; different ones
	for _, s := range slices.Concat(trial, before) {
		names[s.ID] = s.Name
		for _, value := range s.by()[p] {
			if !slices.Contains(said[s.ID], value) {
				said[s.ID] = append(said[s.ID], value)
			}
		}
	}
	// What was said before the trial convicts, and has no vote: a machine that was
	// started again since would have two.
	votes := map[string]int{}
	for _, s := range trial {
		if values := said[s.ID]; len(values) == 1 {
			votes[values[0]]++
		}
	}
	best, second := 0, 0
	for _, value := range slices.Sorted(maps.Keys(votes)) {
		switch n := votes[value]; {
		case n > best:
			truth, best, second = value, n, best
		default:
			second = max(second, n)
		}
	}
	decided = len(votes) <= 1 || best >= 2 && best > second
	enough := 2
	if !decided && len(votes) == 2 {
		for value := range votes {
			if digest(value) == NotFinite { // of two, the other one
				delete(votes, value)
				truth = slices.Collect(maps.Keys(votes))[0]
				decided, best, enough = true, votes[truth], 1
				break
			}
		}
	}
	for id, values := range said {
		o := Odd{ID: id, Name: names[id], Group: p.group, Got: digest(values[0]), Want: digest(truth), Agree: best}
		switch {
		case len(values) > 1: // it contradicts itself
			for _, value := range values {
				if value != truth {
					o.Got = digest(value)
				}
			}
		case !decided || best < enough || values[0] == truth:
			continue
		}
		odd = append(odd, o)
	}
	slices.SortFunc(odd, func(a, b Odd) int { return cmp.Compare(a.ID, b.ID) })
	return odd, truth, decided
}

// digest is the part of a value that says the result.
func digest(value string) string {
	_, d, _ := strings.Cut(value, " ")
	return d
}

// most is what most say; of equally many the first.
func most(list []Said, of func(Said) string) (best string) {
	count := map[string]int{}
	for _, s := range list {
		count[of(s)]++
	}
	for i, s := range list {
		if i == 0 || count[of(s)] > count[best] {
			best = of(s)
		}
	}
	return best
}

// Ban leaves a member out for good: its id, and with byName whatever comes under
// its name, such as the same machine after a restart.
func (j *Jury) Ban(id, name, why string, byName bool) {
	j.banned, j.changed = append(j.banned, banned{id, name, why, byName}), true
}

// Banned says why a replica is not admitted, "" when it may be.
func (j *Jury) Banned(id, name string) string {
	for _, b := range j.banned {
		if b.ID == id || b.ByName && b.Name == name {
			return b.Why
		}
	}
	return ""
}

// BannedNames are those left out, in the order in which they were.
func (j *Jury) BannedNames() []string {
	var names []string
	for _, b := range j.banned {
		names = append(names, fmt.Sprintf("%s (%s)", b.Name, b.ID))
	}
	return names
}
