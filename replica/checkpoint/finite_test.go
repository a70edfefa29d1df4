package checkpoint

import (
	"bytes"
	"math"
	"testing"
)

// A state with one value that is no number says in which tensor; the digest of its
// data, and that of shards, goes through a file.
func TestStatesOfNoUse(t *testing.T) {
	s := tinyState(3)
	s.Data, s.Shards = "0123abcd", "a=1 b=2"
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	back, err := Read(bytes.NewReader(b.Bytes()))
	if err != nil || back.Data != s.Data || back.Shards != s.Shards || back.NotFinite() != "" {
		t.Fatalf("data %q, not finite %q, %v", back.Data, back.NotFinite(), err)
	}
	for want, at := range map[string]*float32{
		"encoder_q.bn1.weight": &back.QueryParams[9], "encoder_k.conv1.weight": &back.KeyParams[0], "optimizer.momentum.fc.bias": &back.Momentum[10],
		"encoder_q.bn1.running_var": &back.QueryBuffers[3], "the queue": &back.Queue[14],
	} {
		old := *at
		for _, v := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
			*at = float32(v)
			if got := back.NotFinite(); got != want {
				t.Errorf("%g in %s: %q", v, want, got)
			}
		}
		*at = math.MaxFloat32
		if got := back.NotFinite(); got != "" {
			t.Errorf("a large number in %s: %q", want, got)
		}
		*at = old
	}
}
