package roster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

var start = time.Unix(1e9, 0)

// admit fills a roster with replicas of these ids.
func admit(ids ...string) (*roster.Roster, []*roster.Replica) {
	s := roster.New()
	var list []*roster.Replica
	for _, id := range ids {
		list = append(list, s.Admit(protocol.Hello{ID: id, Name: strings.ToUpper(id)}, start))
	}
	return s, list
}

func names(list []*roster.Replica) string {
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID())
	}
	return strings.Join(ids, " ")
}

func ExampleMajority() {
	_, all := admit("a", "b", "c", "d")
	digest := map[string]string{"a": "x", "b": "y", "c": "y", "d": "x"} // a tie: the first one's group
	majority, others := roster.Majority(all, func(r *roster.Replica) string { return digest[r.ID()] })
	fmt.Println(majority, others)
	// Output: [A (a) D (d)] [B (b) C (c)]
}

// Replicas stand by rank, and those without one behind them by arrival.
func TestOrder(t *testing.T) {
	s, r := admit("a", "b", "c", "d")
	s.NewRanks([]*roster.Replica{r[2], r[0]})
	if got := names(s.All()); got != "c a b d" {
		t.Errorf("%s", got)
	}
	s.NewRanks([]*roster.Replica{r[3]})
	if got := names(s.All()); got != "d a b c" {
		t.Errorf("in the next round %s", got)
	}
	if !r[0].Leave() || r[0].Leave() {
		t.Error("a replica asks to leave once")
	}
	s.Remove(r[1])
	if got := names(s.Staying()); got != "d c" || s.Get("b") != nil || s.Get("a") != r[0] {
		t.Errorf("staying: %s", got)
	}
	s.Admit(protocol.Hello{ID: "b"}, start)
	if got := names(s.All()); got != "d a c b" {
		t.Errorf("one that comes back stands last: %s", got)
	}
}

// A commit that was sent again replaces what is known of a replica only once it
// answers, and a Hello that crossed with it changes nothing.
func TestSentAgain(t *testing.T) {
	_, r := admit("a")
	a := r[0]
	h := protocol.Hello{
		ID: "a", State: &protocol.Position{Step: 4, Digest: "s4", Shards: []string{"v0", ""}}, Pending: &protocol.Pending{Step: 5, Digest: "g5"},
	}
	if !a.Says(h, start) || a.Step() != 4 || a.Shard(0) != "v0" || a.Shard(1) != "" || a.Shard(7) != "" {
		t.Fatalf("it holds %d, %q", a.Step(), a.Shard(0))
	}
	for _, c := range []struct {
		commit protocol.Commit
		want   bool
	}{{protocol.Commit{Step: 5, Digest: "g5"}, true}, {protocol.Commit{Step: 5, Digest: "other"}, false}, {protocol.Commit{Step: 6, Digest: "g5"}, false}} {
		if got := a.Missed(&c.commit); got != c.want {
			t.Errorf("missed %+v: %v", c.commit, got)
		}
	}
	a.SentAgain(5, start)
	if since, applying := a.Applying(); !applying || !since.Equal(start) || a.Step() != -1 {
		t.Errorf("it stands at %d", a.Step())
	}
	if a.Says(h, start) || a.Step() != -1 {
		t.Error("a Hello from before was believed")
	}
	a.AppliedAgain(&protocol.Applied{Step: 4})
	if a.Step() != -1 {
		t.Error("an answer to something else was taken")
	}
	a.AppliedAgain(&protocol.Applied{Step: 5, StateDigest: "s5", Shards: []string{"w0", "w1"}, Damaged: []int{1, 9, -1}})
	if _, applying := a.Applying(); applying || a.Step() != 5 || a.StateDigest() != "s5" || a.Shard(0) != "w0" || a.Shard(1) != "" {
		t.Errorf("it holds %d, %q %q", a.Step(), a.Shard(0), a.Shard(1))
	}
}

// Speeds are smoothed; a step without work or without a time says nothing.
func TestMeasured(t *testing.T) {
	_, r := admit("a")
	r[0].Measured(0, 3)
	r[0].Measured(10, 0)
	if r[0].MSPerGroup() != 0 {
		t.Error(r[0].MSPerGroup())
	}
	r[0].Measured(30, 3)
	r[0].Measured(60, 3)
	if got := r[0].MSPerGroup(); got != 0.7*10+0.3*20 {
		t.Error(got)
	}
}

// The time that the coordinator stood still is not a replica's silence, and
// whoever speaks is not dead.
func TestSilence(t *testing.T) {
	_, r := admit("a")
	a := r[0]
	a.Hint(true)
	if got := a.Silence(start.Add(3*time.Second), 0); got != 3*time.Second || !a.Hinted() {
		t.Error(got)
	}
	if got := a.Silence(start.Add(5*time.Second), 2*time.Second); got != 3*time.Second {
		t.Error(got)
	}
	if got := a.Silence(start.Add(6*time.Second), time.Minute); got != 0 {
		t.Errorf("%v: not heard of in the future", got)
	}
	if a.Seen(start.Add(6 * time.Second)); a.Hinted() {
		t.Error("it spoke")
	}
	a.Waits(start)
	if got := a.Waits(start.Add(time.Second)); got != time.Second {
		t.Error(got)
	}
	a.Busy()
	if got := a.Waits(start.Add(time.Second)); got != 0 {
		t.Error(got)
	}
}
