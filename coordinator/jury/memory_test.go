package jury_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"mochi/coordinator"
	"mochi/coordinator/jury"
	"mochi/coordinator/protocol"
)

// A jury that is written down and read again after anything that happens to it
// says and decides what it would have said and decided.
func TestMemory(t *testing.T) {
	for seed := range uint64(80) {
		rng := rand.New(rand.NewPCG(seed, 3))
		was, again := jury.New(), jury.New()
		word := func() jury.Said {
			s := said(fmt.Sprint("m", rng.IntN(4)), fmt.Sprint(rng.IntN(2)))
			s.Name, s.Partial = s.ID+"'s name", rng.IntN(4) == 0
			return s
		}
		words := func() (list []jury.Said) {
			for range rng.IntN(4) {
				list = append(list, word())
			}
			return list
		}
		for n := range 30 {
			step := int64(n / 10)
			a, b := words(), word()
			for _, j := range []*jury.Jury{was, again} {
				switch rng := rand.New(rand.NewPCG(seed, uint64(n))); rng.IntN(6) {
				case 0:
					j.Hear(step, a, map[string]bool{b.ID: true})
				case 1:
					j.Open(step, []int{0}, a)
				case 2:
					j.Accuse(step, []int{0}, b)
				case 3:
					j.Ban(b.ID, b.Name, "why", rng.IntN(2) == 0)
				case 4:
					j.Trial(step)
				default:
					j.Judge(a)
				}
			}
			text := again.Memory()
			if was.Memory() != text {
				t.Fatalf("seed %d, %d:\n%s\nnot\n%s", seed, n, text, was.Memory())
			}
			if was.Changed() != again.Changed() {
				t.Fatalf("seed %d, %d: one has changed", seed, n)
			}
			var err error
			if again, err = jury.Remember(text); err != nil {
				t.Fatal(err)
			}
			if was.Banned(b.ID, b.Name) != again.Banned(b.ID, b.Name) || was.Sound(b.ID) != again.Sound(b.ID) ||
				!slices.Equal(was.BannedNames(), again.BannedNames()) ||
				was.Awaits(step, []string{"m0", "m1"}) != again.Awaits(step, []string{"m0", "m1"}) {
				t.Fatalf("seed %d, %d: they know different things", seed, n)
			}
		}
	}
}

// Whatever is decided is told, so that it can be stored; and what is not is not.
func TestChanged(t *testing.T) {
	j := jury.New()
	two := []jury.Said{said("a", "x"), said("b", "y")}
	for n, c := range []struct {
		do   func()
		want bool
	}{
		{func() {}, false},
		{func() { j.Hear(1, two, nil) }, false},
		{func() { j.Open(1, []int{0}, two) }, true},
		{func() { j.Trial(1) }, false},
		{func() { j.Judge(two) }, true}, // they are told apart no more
		{func() { j.Awaits(1, []string{"a", "b"}) }, false},
		{func() { j.Accuse(1, []int{1}, said("a", "z")) }, true},
		{func() { j.Trial(2) }, true}, // the job has gone on
		{func() { j.Close() }, false},
		{func() { j.Ban("a", "a", "why", true) }, true},
	} {
		if c.do(); j.Changed() != c.want || j.Changed() {
			t.Errorf("%d: not %v, or not once", n, c.want)
		}
	}
}

// However much is known, it fits into a note; what is left is the newest.
func TestMemoryFits(t *testing.T) {
	j := jury.New()
	long := fmt.Sprintf("%0300d", 0)
	for i := range 2000 {
		id := fmt.Sprintf("%016d", i)
		j.Ban(id, "a name of an ordinary length", long, i%2 == 0)
		j.Hear(int64(i), []jury.Said{said("a", "x"), said("b", "x")}, map[string]bool{id: true})
	}
	big := jury.Said{ID: "a"}
	for g := range 4096 {
		big.Expected = append(big.Expected, g)
		big.Recounts = append(big.Recounts, protocol.Recount{Group: g, Key: fmt.Sprintf("%064d", g), Query: fmt.Sprintf("%064d", g)})
	}
	j.Open(2000, []int{7}, []jury.Said{big})
	for _, groups := range [][]int{{7}, big.Expected} {
		j.Open(2000, groups, []jury.Said{big})
		text := j.Memory()
		if len(text) > coordinator.MaxNote {
			t.Fatalf("%d bytes", len(text))
		}
		again, err := jury.Remember(text)
		if err != nil {
			t.Fatal(err)
		}
		if again.Banned("0000000000001999", "") == "" || again.Sound("0000000000001999") != 1999 {
			t.Error("the newest are forgotten")
		}
		if kept := len(again.Trial(2000)); kept != len(groups) && len(groups) == 1 {
			t.Errorf("a case of %d groups has %d", len(groups), kept)
		}
	}
}

// What cannot be read is an error, and leaves nobody out.
func TestMemoryOfAnotherKind(t *testing.T) {
	for _, text := range []string{"x", "[]", `{"case":5}`, `{"banned":{}}`, `{"sound":{"a":"b"}}`} {
		if j, err := jury.Remember(text); err == nil || len(j.BannedNames()) > 0 || j.Trial(0) != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "{}", `{"case":null}`, `{"later":1}`} {
		if j, err := jury.Remember(text); err != nil || j.Memory() != jury.New().Memory() {
			t.Errorf("%q: %v", text, err)
		}
	}
}
