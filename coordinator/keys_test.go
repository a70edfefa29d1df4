package coordinator

import (
	"bytes"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// TestKeysOfRounds: members of a plain round are told one key, others none; another round
// and another run of the coordinator have another, and jobs in TLS have none.
func TestKeysOfRounds(t *testing.T) {
	job := config.Default()
	round := func(n int64) *protocol.Round {
		return &protocol.Round{Round: n, Members: []protocol.Member{{ID: "a"}, {ID: "b"}}}
	}
	if got := newKeys(job).with(round(1), "a"); got.Key != nil {
		t.Error("a job in TLS has keys")
	}
	job.RingSecurity = config.SecurityPlain
	k := newKeys(job)
	r := round(1)
	a, b := k.with(r, "a").Key, k.with(round(1), "b").Key
	if k.with(r, "a") != k.with(r, "b") {
		t.Error("a round that goes to many is made anew for each")
	}
	if len(a) != protocol.KeyLen || !bytes.Equal(a, b) {
		t.Errorf("members are told %x and %x", a, b)
	}
	if r.Key != nil || k.with(r, "c").Key != nil {
		t.Error("somebody who stands by is told the key")
	}
	if bytes.Equal(a, k.with(round(2), "a").Key) || bytes.Equal(a, newKeys(job).with(round(1), "a").Key) {
		t.Error("two rounds have one key")
	}
}
