package natsbus

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAllowances: nobody is heard beyond what time allows, and whoever stays within it is
// heard always, whatever the others say.
func TestAllowances(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		a, now := newAllowances(), time.Unix(1000, 0)
		begin := now
		messages, bytes := 0, 0
		for range 600_000 {
			n := rng.IntN(4000)
			if v := a.says("flooder", n, now); !v.flood {
				messages, bytes = messages+1, bytes+n
			}
			if rng.IntN(2000) == 0 {
				d := time.Duration(rng.IntN(40)) * time.Millisecond
				now = now.Add(d)
				if v := a.says("healthy", 50_000*int(d/time.Millisecond)/20, now); v.flood {
					t.Fatalf("seed %d: one that says little is not heard", seed)
				}
			}
		}
		s := now.Sub(begin).Seconds()
		if most := floodBurst + s*floodMessages; float64(messages) > most+1 {
			t.Errorf("seed %d: %d messages in %.1f s, at most %.0f", seed, messages, s, most)
		}
		if most := floodAtOnce + s*floodBytes; float64(bytes) > most+1 {
			t.Errorf("seed %d: %d bytes in %.1f s, at most %.0f", seed, bytes, s, most)
		}
		if messages < floodBurst/2 && bytes < floodAtOnce/2 {
			t.Errorf("seed %d: %d messages of %d bytes were heard only", seed, messages, bytes)
		}
	}
}

// TestAFloodIsToldNowAndThen, and who said little long ago is forgotten.
func TestAFloodIsToldNowAndThen(t *testing.T) {
	a, now := newAllowances(), time.Unix(1000, 0)
	told := 0
	for range 30 {
		for range 3 {
			if v := a.says("a", floodAtOnce+1, now); !v.flood {
				t.Fatal("a message larger than all that may be said is heard")
			} else if v.first {
				told++
			}
		}
		now = now.Add(time.Second)
	}
	if told != 3 {
		t.Errorf("told %d times in 30 s, want 3", told)
	}
	for i := range 3 * floodSenders {
		a.says(string(rune(i)), 10, now)
		now = now.Add(time.Millisecond)
	}
	if len(a.of) > floodSenders {
		t.Errorf("%d senders are remembered", len(a.of))
	}
}

// TestManyNamesAreHeardLittle: who comes under many names, each of which says no more than one
// may, is not heard more than all may be, and whoever says little is heard beside them.
func TestManyNamesAreHeardLittle(t *testing.T) {
	a, now := newAllowances(), time.Unix(1000, 0)
	const names, seconds, size = 30, 15, 200
	heard := 0
	for step := range seconds * 10 {
		for n := range names {
			for range floodMessages / 10 {
				if !a.says(string(rune('a'+n)), size, now).flood {
					heard++
				}
			}
		}
		for i := range 10 { // 100 a second
			if a.says("healthy", 20_000, now).flood && step > 0 {
				t.Fatalf("after %d ms the message %d of one that says little is not heard", 100*step, i)
			}
		}
		now = now.Add(100 * time.Millisecond)
	}
	if most := allAtOnce + seconds*allMessages + names*(leanAtOnce+seconds*leanMessages); heard > most {
		t.Errorf("%d of %d messages were heard, at most %d", heard, names*seconds*floodMessages, most)
	}
}
