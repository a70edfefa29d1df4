package allreduce

import (
	"bytes"
	"testing"
)

// keyed is deaf with a key.
type keyed struct {
	deaf
	key []byte
}

func (k *keyed) Key() []byte { return k.key }

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeyLen) }

// sealedFrame is a heartbeat of rank 0 of 3 in round 3 of job j, with the seal of somebody.
func sealedFrame(t *testing.T, k []byte, id Identity, d Direction, payload []byte) (b []byte) {
	t.Helper()
	s, err := newSeals(&keyed{key: k}, id)
	if err != nil {
		t.Fatal(err)
	}
	h := header{kind: kindBeat, world: 3, fence: fenceOf(Identity{Job: "j", Round: 3})}
	b = make([]byte, HeaderLen)
	h.put(b)
	s.out[d].seal(b, payload)
	return b
}

// TestOnlySealedFramesAreTaken: one of who has no key, or another, of another round, job,
// size of the world, link or direction, and one that was changed in any bit.
func TestOnlySealedFramesAreTaken(t *testing.T) {
	id := Identity{Job: "j", Round: 3, Rank: 1, World: 3}
	pred := Identity{Job: "j", Round: 3, Rank: 0, World: 3}
	d := &keyed{deaf{identity: id}, key(1)}
	g, err := NewGroup(d, DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	payload := []byte("a gradient")
	other := func(change func(*Identity)) Identity {
		i := pred
		change(&i)
		return i
	}
	sum := make([]byte, HeaderLen)
	beat := header{kind: kindBeat, world: 3, fence: fenceOf(id)}
	beat.encode(sum, payload)
	for name, b := range map[string][]byte{
		"a checksum":        sum,
		"another key":       sealedFrame(t, key(2), pred, Forward, payload),
		"another round":     sealedFrame(t, key(1), other(func(i *Identity) { i.Round = 2 }), Forward, payload),
		"another job":       sealedFrame(t, key(1), other(func(i *Identity) { i.Job = "k" }), Forward, payload),
		"another world":     sealedFrame(t, key(1), other(func(i *Identity) { i.World = 4 }), Forward, payload),
		"another link":      sealedFrame(t, key(1), other(func(i *Identity) { i.Rank = 2 }), Forward, payload),
		"another direction": sealedFrame(t, key(1), pred, Backward, payload),
		"half":              sealedFrame(t, key(1), pred, Forward, payload)[:48],
		"nothing":           nil,
	} {
		before := g.stats.damaged.Load()
		d.h.FromPredecessor(b, payload)
		if g.stats.damaged.Load() != before+1 || g.in.alive.heard.Load() != 0 {
			t.Errorf("a frame with %s counts", name)
		}
	}
	good := sealedFrame(t, key(1), pred, Forward, payload)
	for _, part := range [][]byte{good, payload} {
		for bit := range 8 * len(part) {
			part[bit/8] ^= 1 << (bit % 8)
			d.h.FromPredecessor(good, payload)
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
	if g.in.alive.heard.Load() != 0 {
		t.Error("a frame that was changed counts")
	}
	d.h.FromPredecessor(good, payload)
	if g.in.alive.heard.Swap(0) == 0 {
		t.Error("the right frame does not count")
	}
	d.h.FromPredecessor(good, payload)
	if g.in.alive.heard.Load() != 0 || g.stats.duplicates.Load() != 1 {
		t.Error("a frame that came again counts")
	}
}

// TestReorderedSegmentsEndTheRound: the seals are right, and the order is not.
func TestReorderedSegmentsEndTheRound(t *testing.T) {
	id := Identity{Job: "j", Round: 3, Rank: 1, World: 3}
	d := &keyed{deaf{identity: id}, key(1)}
	g, err := NewGroup(d, DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	pred := Identity{Job: "j", Round: 3, Rank: 0, World: 3}
	s, err := newSeals(&keyed{key: key(1)}, pred)
	if err != nil {
		t.Fatal(err)
	}
	var frames [2][]byte
	for i := range frames {
		h := header{kind: kindData, op: opSum, seq: uint64(i), world: 3, fence: fenceOf(id)}
		frames[i] = make([]byte, HeaderLen)
		h.put(frames[i])
		s.out[Forward].seal(frames[i], nil)
	}
	d.h.FromPredecessor(frames[1], nil)
	if !isClosed(g.ended) {
		t.Error("the second segment was taken before the first")
	}
}

// TestNumbersAreNewOnce: against a set, over jumps of all lengths and late ones.
func TestNumbersAreNewOnce(t *testing.T) {
	var r replays
	seen := map[uint64]bool{}
	last, x := uint64(0), uint64(1)
	for range 200_000 {
		x = x*6364136223846793005 + 1442695040888963407
		n := last + 1 + x>>33%3
		switch x >> 60 {
		case 0:
			n = last + x>>40%(3*replayWindow)
		case 1, 2, 3, 4, 5, 6:
			n = max(last, 20_000) - x>>40%(replayWindow+100)
		}
		want := n > 0 && !seen[n] && n+replayWindow > last
		if got := r.first(n); got != want {
			t.Fatalf("number %d after %d: %t", n, last, got)
		}
		if want {
			seen[n] = true
			last = max(last, n)
		}
	}
	if r.first(0) {
		t.Error("number 0 is good")
	}
}

// TestEveryFrameHasAnotherNumber: whoever sends, at once.
func TestEveryFrameHasAnotherNumber(t *testing.T) {
	s, err := newSeals(&keyed{key: key(1)}, Identity{Job: "j", Round: 1, World: 2})
	if err != nil {
		t.Fatal(err)
	}
	const senders, frames = 4, 500
	all := make(chan []byte, senders*frames)
	for range senders {
		go func() {
			for range frames {
				b := make([]byte, HeaderLen)
				s.out[Forward].seal(b, nil)
				all <- b[fieldsLen:]
			}
		}()
	}
	seen := map[string]bool{}
	for range senders * frames {
		seen[string((<-all)[:numberLen])] = true
	}
	if len(seen) != senders*frames {
		t.Errorf("%d numbers of %d frames", len(seen), senders*frames)
	}
	if _, err := newSeals(&keyed{key: []byte{1}}, Identity{Job: "j", Round: 1, World: 2}); err == nil {
		t.Error("a key of one byte is good")
	}
}

func BenchmarkSeal(b *testing.B) {
	s, err := newSeals(&keyed{key: key(1)}, Identity{Job: "j", Round: 1, World: 2})
	if err != nil {
		b.Fatal(err)
	}
	payload, head := make([]byte, 65_000), make([]byte, HeaderLen)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		s.out[Forward].seal(head, payload)
	}
}
