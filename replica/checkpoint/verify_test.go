package checkpoint

import (
	"math"
	"strings"
	"testing"

	"mochi/replica/queue"
)

// One bit anywhere in what replicas agree on makes it another state, and what is
// not known is not compared.
func TestVerify(t *testing.T) {
	const shards = 2
	s := tinyState(7)
	state := StateDigest(Digests(s.QueryParams, s.KeyParams, s.Momentum, s.QueryBuffers, s.KeyBuffers))
	q := queue.New(s.K, s.Dim, shards)
	if err := q.Set(s.Queue, s.QueueLabels, s.QueuePtr, s.QueueFilled); err != nil {
		t.Fatal(err)
	}
	each := q.Digests()
	if err := s.Verify(state, each); err != nil {
		t.Fatal(err)
	}
	flip := func(v []float32) func() {
		return func() { v[len(v)-1] = math.Float32frombits(math.Float32bits(v[len(v)-1]) ^ 1) }
	}
	for name, change := range map[string]func(){
		"query parameters": flip(s.QueryParams), "key parameters": flip(s.KeyParams), "momentum": flip(s.Momentum),
		"query buffers": flip(s.QueryBuffers), "key buffers": flip(s.KeyBuffers), "queue": flip(s.Queue),
		"labels": func() { s.QueueLabels[1] ^= 1 },
	} {
		change()
		if err := s.Verify(state, each); err == nil || !strings.Contains(err.Error(), "is not the state that was applied after step 7") {
			t.Errorf("%s changed: %v", name, err)
		}
		if err := s.Verify("", make([]string, shards)); err != nil {
			t.Errorf("%s changed, nothing known: %v", name, err)
		}
		change()
	}
	if err := s.Verify(state, each); err != nil {
		t.Errorf("changed back: %v", err)
	}
}
