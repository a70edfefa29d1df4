package protocol_test

import (
	"testing"

	"mochi/coordinator/protocol"
)

// Contents are compared where both are known, shard by shard, and named as the first has
// them.
func TestOtherShards(t *testing.T) {
	for _, c := range []struct{ a, b, other string }{
		{"", "", ""},
		{"a=1 b=2", "", ""},
		{"", "a=1 b=2", ""},
		{"a=1 b=2", "a=1 b=2", ""},
		{"a=1 b=2", "x=1 y=2", ""},
		{"a=1 b=2", "a=1", ""},
		{"a=1 b=2", "a=1 b=3", "b"},
		{"a=1 b=2", "a=2 b=1", "a, b"},
		{"a=1 b=2 c=3 d=4 e=5", "a=0 b=0 c=0 d=0 e=0", "a, b, c and 2 more"},
	} {
		a := protocol.Data{Kind: "tar", Digest: "d", Shards: c.a}
		b := protocol.Data{Kind: "tar", Digest: "d", Shards: c.b}
		if got := a.OtherShards(b); got != c.other || a.Same(b) != (c.other == "") {
			t.Errorf("%q and %q: %q, %v", c.a, c.b, got, a.Same(b))
		}
		if b.Digest = "e"; a.Same(b) {
			t.Errorf("%+v is %+v", a, b)
		}
	}
}
