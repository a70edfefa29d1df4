package jury_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"mochi/coordinator/jury"
	"mochi/coordinator/protocol"
)

// said is a member's word of group 0, once for each digest.
func said(id string, digests ...string) jury.Said {
	s := jury.Said{ID: id, Keys: "k", Expected: []int{0}}
	for _, d := range digests {
		s.Recounts = append(s.Recounts, protocol.Recount{Group: 0, Key: "of the state", Query: d})
	}
	return s
}

func Example() {
	j := jury.New()
	step := []jury.Said{said("a", "right"), said("b", "wrong")}
	fmt.Println("differ on groups", j.Hear(7, step, nil))
	j.Open(7, []int{0}, step)
	fmt.Println("all compute again", j.Trial(7))
	fmt.Printf("%+v\n", j.Judge([]jury.Said{said("a", "right"), said("b", "wrong"), said("c", "right")}).Odd)
	// Output:
	// differ on groups [0]
	// all compute again [0]
	// [{ID:b Name: Group:0 Got:wrong Want:right Agree:2}]
}

func ids(v jury.Verdict) (list []string) {
	for _, o := range v.Odd {
		list = append(list, o.ID)
	}
	return list
}

func TestVerdicts(t *testing.T) {
	other := func(s jury.Said) jury.Said { s.Keys = "of other keys"; return s }
	key := func(s jury.Said) jury.Said {
		s.Recounts = slices.Clone(s.Recounts)
		s.Recounts[0].Key = "flipped"
		return s
	}
	for _, c := range []struct {
		name          string
		before, trial []jury.Said
		odd           []string
		undecided     bool
		notFinite     bool
	}{
		{"a third decides", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "y"), said("c", "y")}, []string{"a"}, false, false},
		{"a passing fault of one of three", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "y"), said("b", "y"), said("c", "y")}, []string{"a"}, false, false},
		{"a passing fault of one of two", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "x")}, []string{"b"}, false, false},
		{"two that stick to it", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "y")}, nil, true, false},
		{"three minds", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "y"), said("c", "z")}, nil, true, false},
		{"two against two", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "y"), said("c", "x"), said("d", "y")}, nil, true, false},
		{"a fault that changes each time", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "z")}, []string{"b"}, false, false},
		{"it says nothing", []jury.Said{said("a", "x"), said("b")}, []jury.Said{said("a", "x"), said("b"), said("c", "x")}, []string{"b"}, false, false},
		{"two liars of five", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b", "y"), said("c", "x"), said("d", "w"), said("e", "x")}, []string{"b", "d"}, false, false},
		{"nobody computes the same twice", []jury.Said{said("a", "1"), said("b", "2")}, []jury.Said{said("a", "3"), said("b", "4")}, nil, true, false},
		{"of other keys before", []jury.Said{other(said("a", "x")), other(said("b", "y"))}, []jury.Said{said("a", "v"), said("b", "v"), said("c", "v")}, nil, false, false},
		{"who was wrong has left", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("b", "y"), said("c", "y")}, []string{"a"}, false, false},
		{"a machine that came back under a new id has no two votes", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("b2", "y")}, nil, true, false},
		{"a passing fault in a key", []jury.Said{key(other(said("a", "v"))), other(said("b", "v"))}, []jury.Said{said("a", "w"), said("b", "w")}, []string{"a"}, false, false},
		{"a fault in a key that stays", []jury.Said{key(said("a", "v")), said("b", "v")}, []jury.Said{key(said("a", "v")), said("b", "v"), said("c", "v")}, []string{"a"}, false, false},
		{"alone, and of two minds", []jury.Said{said("a", jury.NotFinite)}, []jury.Said{said("a", "x")}, []string{"a"}, false, false},
		{"alone, and of one mind", []jury.Said{said("a", jury.NotFinite)}, []jury.Said{said("a", jury.NotFinite)}, nil, false, true},
		{"of two, one finds no number", []jury.Said{said("a", jury.NotFinite)}, []jury.Said{said("a", jury.NotFinite), said("b", "x")}, []string{"a"}, false, false},
		{"all find no number", nil, []jury.Said{said("a", jury.NotFinite), said("b", jury.NotFinite)}, nil, false, true},
		{"one finds no number", nil, []jury.Said{said("a", jury.NotFinite), said("b", "x"), said("c", "x")}, []string{"a"}, false, false},
		{"keys that only one has", []jury.Said{said("a", "x"), said("b", "y")}, []jury.Said{said("a", "x"), said("c", "x"), other(said("b", "x"))}, []string{"b"}, false, false},
	} {
		j := jury.New()
		j.Open(5, []int{0}, c.before)
		v := j.Judge(c.trial)
		if !slices.Equal(ids(v), c.odd) || (len(v.Undecided) > 0) != c.undecided || v.NotFinite != c.notFinite {
			t.Errorf("%s: %+v", c.name, v)
		}
		if settled := j.Trial(5) == nil; settled == c.undecided {
			t.Errorf("%s: settled %v", c.name, settled)
		}
	}
}

// As long as most members are sound, whatever the others say and whoever is
// among the first two, nobody sound is ever named, and who is wrong in the trial
// always is.
func TestSoundMembersAreNeverNamed(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 20000 {
		world := 3 + rng.IntN(6)
		liars := map[string]bool{}
		for len(liars) < rng.IntN((world+1)/2) {
			liars[strconv.Itoa(rng.IntN(world))] = true
		}
		word := func(id string) jury.Said {
			switch {
			case !liars[id]:
				return said(id, "truth")
			case rng.IntN(8) == 0:
				return said(id)
			}
			return said(id, fmt.Sprint(rng.IntN(4))) // they may agree with each other
		}
		var trial, before []jury.Said
		for m := range world {
			trial = append(trial, word(strconv.Itoa(m)))
		}
		first := rng.IntN(world)
		before = append(before, word(strconv.Itoa(first)), word(strconv.Itoa((first+1)%world)))
		j := jury.New()
		j.Open(1, []int{0}, before)
		v := j.Judge(trial)
		if len(v.Undecided) > 0 || len(v.Odd) < len(liars) {
			t.Fatalf("%d: of %d, liars %v: %+v", n, world, liars, v)
		}
		for _, id := range ids(v) {
			if !liars[id] {
				t.Fatalf("%d: %s is sound, liars are %v: %+v", n, id, liars, v)
			}
		}
	}
}

// Two that cannot be told apart wait for a third, or until one goes.
func TestAwaitsAThird(t *testing.T) {
	open := func() *jury.Jury {
		j := jury.New()
		words := []jury.Said{said("a", "x"), said("b", "y")}
		j.Open(3, []int{0}, words)
		if j.Awaits(3, []string{"a", "b"}) {
			t.Error("before their trial")
		}
		j.Judge(words)
		return j
	}
	j := open()
	if !j.Awaits(3, []string{"b", "a"}) || j.Awaits(3, []string{"a", "c"}) || j.Awaits(3, []string{"a", "b", "c"}) || j.Trial(3) == nil {
		t.Error("they wait for a third, and it is tried again")
	}
	if j.Awaits(3, []string{"b"}) {
		t.Error("one that is left does not wait")
	}
	if v := j.Judge([]jury.Said{said("b", "y")}); len(v.Odd)+len(v.Undecided) > 0 || j.Trial(3) != nil {
		t.Errorf("it goes on, and nobody is named: %+v", v)
	}
	if j = open(); j.Awaits(2, []string{"a", "b"}) || j.Trial(3) != nil {
		t.Error("the job has gone back")
	}
}

// More than two that stick to as many results are tried three times.
func TestEnough(t *testing.T) {
	j := jury.New()
	words := []jury.Said{said("a", "x"), said("b", "y"), said("c", "z")}
	j.Open(3, []int{0}, words)
	for n := range 3 {
		if v := j.Judge(words); v.Enough != (n == 2) {
			t.Errorf("trial %d: %+v", n, v)
		}
	}
}

// Comparisons are counted by group, and the last step in which a member was right
// is remembered; what nobody asked for counts for nothing.
func TestHear(t *testing.T) {
	j := jury.New()
	stray := said("c", "other")
	stray.Expected = nil
	if d := j.Hear(4, []jury.Said{said("a", "x"), said("b", "x"), stray}, map[string]bool{"a": true}); len(d) > 0 {
		t.Errorf("they differ on %v", d)
	}
	if d := j.Hear(9, []jury.Said{said("a", "x"), said("b")}, map[string]bool{"a": true}); !slices.Equal(d, []int{0}) {
		t.Errorf("one says nothing: differ on %v", d)
	}
	if d := j.Hear(10, []jury.Said{said("a", "x", "y")}, map[string]bool{"a": true}); !slices.Equal(d, []int{0}) {
		t.Errorf("it contradicts itself: %v", d)
	}
	done, failed := j.Counts()
	if done != 3 || failed != 2 || j.Sound("a") != 4 || j.Sound("b") != 0 {
		t.Errorf("%d done, %d failed, sound in %d and %d", done, failed, j.Sound("a"), j.Sound("b"))
	}
}

func TestBan(t *testing.T) {
	j := jury.New()
	j.Ban("a-1", "a", "why", true)
	j.Ban("pool-7", "pool", "that", false)
	for _, c := range []struct{ id, name, want string }{
		{"a-1", "a", "why"}, {"a-2", "a", "why"}, {"b-1", "b", ""}, {"pool-7", "pool", "that"}, {"pool-8", "pool", ""},
	} {
		if got := j.Banned(c.id, c.name); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.id, c.name, got, c.want)
		}
	}
	if got := j.BannedNames(); !slices.Equal(got, []string{"a (a-1)", "pool (pool-7)"}) {
		t.Errorf("%q", got)
	}
}
