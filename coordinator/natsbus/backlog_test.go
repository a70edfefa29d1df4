package natsbus

import (
	"math/rand/v2"
	"testing"

	"mochi/coordinator/protocol"
)

// What is read is what was put, in order, but for heartbeats that the next word of
// their sender is a heartbeat too; of each replica there is never more than one
// heartbeat between two other words.
func TestBacklog(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := newBacklog(1<<20, 1<<20)
		var oracle []protocol.Message // what is to be read
		read := func() {
			m, ok, _ := b.take()
			if !ok {
				if len(oracle) != 0 {
					t.Fatalf("seed %d: empty, %d are missing", seed, len(oracle))
				}
				return
			}
			want := oracle[0]
			oracle = oracle[1:]
			same := m.From == want.From
			if same && want.Heartbeat != nil {
				same = m.Heartbeat != nil && m.Heartbeat.Done == want.Heartbeat.Done
			} else if same {
				same = m.Applied != nil && m.Applied.Step == want.Applied.Step
			}
			if !same {
				t.Fatalf("seed %d: got %+v, want %+v", seed, m, want)
			}
		}
		for i := range int64(300) {
			from := string(rune('a' + rng.IntN(3)))
			switch rng.IntN(5) {
			case 0:
				read()
			case 1:
				m := protocol.Message{From: from, Applied: &protocol.Applied{Step: i}}
				oracle = append(oracle, m)
				b.put(m, 10)
			default:
				m := protocol.Message{From: from, Heartbeat: &protocol.Heartbeat{Done: i}}
				last := -1
				for j, o := range oracle {
					if o.From == from {
						last = j
					}
				}
				if last >= 0 && oracle[last].Heartbeat != nil {
					oracle[last] = m
				} else {
					oracle = append(oracle, m)
				}
				b.put(m, 10)
			}
		}
		for len(oracle) > 0 {
			read()
		}
		if _, ok, _ := b.take(); ok || b.bytes != 0 || len(b.beats) != 0 || len(b.by) != 0 {
			t.Fatalf("seed %d: something is left: %d bytes, %d heartbeats", seed, b.bytes, len(b.beats))
		}
	}
}

// A full backlog loses what comes, says so once, and takes messages again when
// there is room.
func TestBacklogFull(t *testing.T) {
	b := newBacklog(100, 100)
	word := protocol.Message{From: "a", Applied: &protocol.Applied{}}
	told := 0
	for range 15 {
		if b.put(word, 10) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("said %d times that it is full, want once", told)
	}
	lost, n := 0, 0
	for {
		_, ok, dropped := b.take()
		if !ok {
			break
		}
		lost, n = lost+dropped, n+1
	}
	if n != 10 || lost != 5 {
		t.Errorf("%d were read and %d said to be lost, want 10 and 5", n, lost)
	}
	if b.put(word, 10); len(b.queue) != 1 {
		t.Error("an empty backlog takes nothing")
	}
}

// What one sender has waiting leaves room for the others.
func TestBacklogOfOne(t *testing.T) {
	b := newBacklog(100, 30)
	for range 10 {
		b.put(protocol.Message{From: "a", Applied: &protocol.Applied{}}, 10)
	}
	b.put(protocol.Message{From: "b", Applied: &protocol.Applied{}}, 10)
	n := map[string]int{}
	for {
		m, ok, _ := b.take()
		if !ok {
			break
		}
		n[m.From]++
	}
	if n["a"] != 3 || n["b"] != 1 || len(b.by) != 0 {
		t.Errorf("%v were read, want 3 of a and 1 of b; %v are left", n, b.by)
	}
}
