package blame_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mochi/coordinator/blame"
)

var start = time.Unix(1e9, 0)

func after(d time.Duration) time.Time { return start.Add(d) }

// One fault leaves nobody out; of two that cannot reach each other the newer
// goes first, and of three the one that two others cannot reach.
func TestWorst(t *testing.T) {
	b := blame.New()
	b.Pair(start, 1, "b", "x")
	b.Pair(start, 1, "b", "x") // said twice
	b.Pair(start, 1, "x", "b") // and by both
	if w := b.Worst([]string{"a", "b", "x"}); w != "" || b.Faults("b") != 1 {
		t.Errorf("%q is left out after one fault of a pair (%d)", w, b.Faults("b"))
	}
	b.Pair(start, 2, "b", "x")
	for _, order := range [][]string{{"a", "b", "x"}, {"x", "b"}} {
		if w := b.Worst(order); w != order[len(order)-1] {
			t.Errorf("%q of %v is left out", w, order)
		}
	}
	b.Pair(start, 3, "x", "a")
	if w := b.Worst([]string{"x", "a", "b"}); w != "x" {
		t.Errorf("%q is left out, which two others reach", w)
	}
	if b.Faults("x") != 3 || b.Faults("a") != 1 || b.Faults("b") != 2 {
		t.Errorf("faults %d %d %d", b.Faults("x"), b.Faults("a"), b.Faults("b"))
	}
}

// Who is left out comes back after 10 s, 20 s … 10 min.
func TestBackOff(t *testing.T) {
	b := blame.New()
	now := start
	var waits []time.Duration
	for range 9 {
		d := b.Exclude(now, "x", "test")
		waits = append(waits, d)
		if until, why, out := b.Excluded(now.Add(d-1), "x"); !out || why != "test" || !until.Equal(now.Add(d)) {
			t.Errorf("not left out until %v: %v %q %v", d, until, why, out)
		}
		if _, _, out := b.Excluded(now.Add(d), "x"); out {
			t.Errorf("left out after %v", d)
		}
		now = now.Add(d)
	}
	if want := "[10s 20s 40s 1m20s 2m40s 5m20s 10m0s 10m0s 10m0s]"; fmt.Sprint(waits) != want {
		t.Errorf("%v, want %s", waits, want)
	}
	for range blame.Forgets {
		b.Worked([]string{"x", "y"})
	}
	if d := b.Exclude(now, "x", "test"); d != blame.First {
		t.Errorf("left out for %v after it had worked for long", d)
	}
}

// Steps together clear what stood between two, and nothing else.
func TestWorkClears(t *testing.T) {
	b := blame.New()
	b.Pair(start, 1, "a", "b")
	b.Pair(start, 1, "a", "c")
	b.Own(start, 2, "a")
	for range blame.Clears {
		b.Worked([]string{"a", "b"})
	}
	if b.Faults("a") != 1 || b.Faults("b") != 0 || b.Faults("c") != 1 {
		t.Errorf("faults %d %d %d after steps of a and b", b.Faults("a"), b.Faults("b"), b.Faults("c"))
	}
}

// Whoever could not reach one that is dead was not to blame.
func TestGoneForgives(t *testing.T) {
	b := blame.New()
	b.Pair(start, 1, "b", "x")
	b.Pair(start, 2, "b", "x")
	b.Exclude(start, "b", "it does not reach x")
	b.Gone(after(time.Second), "x")
	if _, _, out := b.Excluded(after(time.Second), "b"); out || b.Faults("b") != 0 {
		t.Errorf("b is left out (%d faults) because of x, which is gone", b.Faults("b"))
	}
	b.Own(start, 3, "c")
	b.Own(start, 4, "c")
	b.Own(start, 9, "d") // and when x died
	b.Exclude(start, "c", "own trouble")
	b.Gone(after(time.Second), "x")
	if _, _, out := b.Excluded(after(time.Second), "c"); !out {
		t.Error("c is taken in again, which has faults of its own")
	}
	if b.Faults("d") != 0 {
		t.Error("d is blamed for a round that failed when x died")
	}
}

// A name whose replicas die young waits longer each time; not after the first,
// not when one lived, and not when one was only away.
func TestCrashLoop(t *testing.T) {
	b := blame.New()
	var waits []time.Duration
	for i := range 6 {
		now := after(time.Duration(i) * time.Hour)
		b.Died(now, "n", fmt.Sprintf("n-%d", i), 3, time.Second)
		until, _, _ := b.Waits(now, "n")
		waits = append(waits, max(0, until.Sub(now)))
	}
	if want := "[0s 10s 30s 2m0s 2m0s 2m0s]"; fmt.Sprint(waits) != want {
		t.Errorf("%v, want %s", waits, want)
	}
	now := after(6 * time.Hour)
	if _, _, out := b.Waits(now, "other"); out {
		t.Error("another name waits")
	}
	b.Returned("n", "n-5")
	if _, _, out := b.Waits(after(5*time.Hour), "n"); out {
		t.Error("it waits although the last was only away")
	}
	b.Died(now, "n", "n-6", blame.Young, time.Second)
	b.Died(now, "n", "n-7", 0, time.Second)
	if _, _, out := b.Waits(now, "n"); out {
		t.Error("deaths before one that lived count")
	}
}

// Whatever is reported: nobody without two faults is left out, the worst has
// most faults, and faults of a pair are the same on both sides.
func TestRandomReports(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		ids := []string{"a", "b", "c", "d", "e"}
		b := blame.New()
		now := start
		for i := range 200 {
			now = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
			x, y := ids[rng.IntN(5)], ids[rng.IntN(5)]
			switch rng.IntN(6) {
			case 0, 1:
				b.Pair(now, int64(i/3), x, y)
			case 2:
				b.Own(now, int64(i/3), x)
			case 3:
				b.Worked([]string{x, y})
			case 4:
				if rng.IntN(4) == 0 {
					b.Gone(now, x)
				}
			case 5:
				w := b.Worst(ids)
				for _, id := range ids {
					if w == "" && b.Faults(id) >= blame.Enough || w != "" && b.Faults(id) > b.Faults(w) {
						t.Fatalf("seed %d: %q is the worst, %s has %d faults", seed, w, id, b.Faults(id))
					}
				}
				if w != "" && b.Faults(w) < blame.Enough {
					t.Fatalf("seed %d: %s is left out with %d faults", seed, w, b.Faults(w))
				}
			}
			for _, p := range ids {
				for _, q := range ids {
					if slices.Contains(b.Partners(p), q) != slices.Contains(b.Partners(q), p) {
						t.Fatalf("seed %d: of %s and %s only one blames the other", seed, p, q)
					}
				}
			}
		}
	}
}
