package config_test

import (
	"encoding/hex"
	"math"
	"math/rand/v2"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

// payload is the largest message that a NATS server takes by default.
const payload = 1 << 20

// The largest settings that are allowed have messages that fit, with numbers and
// digests that no packing makes shorter than they are.
func TestMessagesFit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	figure := func() float64 { return -r.Float64() / 100 } // 19 digits and a sign
	digest := func(bytes int) string {
		b := make([]byte, bytes)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return hex.EncodeToString(b)
	}
	job := config.Default()
	job.BNGroup, job.Batch = 2, 2
	for job.Validate() == nil {
		job.Batch *= 2
		job.Queue = max(job.Queue, job.Batch)
	}
	job.Batch /= 2
	if err := job.Validate(); err != nil || job.Groups() < 8192 {
		t.Fatalf("%d groups: %v", job.Groups(), err)
	}
	ready := protocol.Ready{Digest: digest(16), Keys: digest(16), Groups: make([]protocol.GroupReport, job.Groups()), Recounts: make([]protocol.Recount, job.Groups())}
	for i := range ready.Groups {
		ready.Groups[i] = protocol.GroupReport{Group: i, Figures: figures.Figures{Loss: figure(), Proxy: 2, ProxyHard: 2, PosSim: figure(), NegSim: figure(), HardestSim: figure(), HardSim: figure(), Spread: figure(), ProbeLoss: math.Round(1e6*r.Float64()) / 1e4, ProbeAcc: 2}}
	}
	for i := range ready.Recounts {
		ready.Recounts[i] = protocol.Recount{Group: i, Key: digest(16), Query: digest(16)}
	}

	job = config.Default()
	job.QueueCopies, job.QueueShards = "2", 1
	job.Queue = 1 << 20
	for job.Validate() == nil {
		job.QueueShards *= 2
	}
	job.QueueShards /= 2
	if err := job.Validate(); err != nil || job.QueueShards < 32768 {
		t.Fatalf("%d shards: %v", job.QueueShards, err)
	}
	round := protocol.Round{Members: make([]protocol.Member, 256), Holders: make([][]int, job.QueueShards), Transfers: make([]protocol.Transfer, job.QueueShards)}
	for i := range round.Members {
		round.Members[i] = protocol.Member{ID: digest(16), BulkURL: "nats://" + digest(16), Groups: make([]int, 8192/256)}
	}
	applied := protocol.Applied{Shards: make([]string, 65536), Damaged: make([]int, 65536)} // of queue-copies all
	for i := range round.Holders {
		round.Holders[i] = []int{r.IntN(256), r.IntN(256)}
		round.Transfers[i] = protocol.Transfer{Shard: i, From: r.IntN(256), To: []int{r.IntN(256)}, Digest: digest(8)}
	}
	for i := range applied.Shards {
		applied.Shards[i], applied.Damaged[i] = digest(8), i
	}
	for what, m := range map[string]protocol.Message{
		"a vote":    {Ready: &ready},
		"a round":   {Round: &round},
		"a commit":  {Commit: &protocol.Commit{Digest: digest(16), Groups: ready.Groups}},
		"an answer": {Applied: &applied},
	} {
		text, err := protocol.Encode(m)
		if err != nil || len(text) > payload*9/10 {
			t.Errorf("%s has %d bytes of %d, %v", what, len(text), payload, err)
		}
		t.Logf("%s: %d bytes", what, len(text))
	}
}
