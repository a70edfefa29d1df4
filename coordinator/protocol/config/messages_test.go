package config_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/figures"
)

// payload is the largest message that a NATS server takes by default.
const payload = 1 << 20

// The largest settings that are allowed have messages that fit, with the longest
// numbers that they can have.
func TestMessagesFit(t *testing.T) {
	long := -math.Pi / 100 // 19 digits and a sign
	most := figures.Figures{Loss: long, Proxy: 2, ProxyHard: 2, PosSim: long, NegSim: long, HardestSim: long, HardSim: long, Spread: long}
	digest := strings.Repeat("d", 32)
	job := config.Default()
	job.BNGroup, job.Batch = 2, 2
	for job.Validate() == nil {
		job.Batch *= 2
		job.Queue = max(job.Queue, job.Batch)
	}
	job.Batch /= 2
	if err := job.Validate(); err != nil || job.Groups() < 1024 {
		t.Fatalf("%d groups: %v", job.Groups(), err)
	}
	ready := protocol.Ready{Digest: digest, Keys: digest, Groups: make([]protocol.GroupReport, job.Groups()), Recounts: make([]protocol.Recount, job.Groups())}
	for i := range ready.Groups {
		ready.Groups[i] = protocol.GroupReport{Group: i, Figures: most}
		ready.Recounts[i] = protocol.Recount{Group: i, Key: digest, Query: digest}
	}

	job = config.Default()
	job.QueueCopies, job.QueueShards = "16", 1
	job.Queue = 1 << 20
	for job.Validate() == nil {
		job.QueueShards *= 2
	}
	job.QueueShards /= 2
	if err := job.Validate(); err != nil || job.QueueShards < 1024 {
		t.Fatalf("%d shards: %v", job.QueueShards, err)
	}
	holders := make([]int, 16)
	for i := range holders {
		holders[i] = 240 + i
	}
	round := protocol.Round{Members: make([]protocol.Member, 256), Holders: make([][]int, job.QueueShards), Transfers: make([]protocol.Transfer, job.QueueShards)}
	for i := range round.Members {
		round.Members[i] = protocol.Member{ID: digest, BulkURL: "nats://" + digest, Groups: make([]int, 2048/256)}
	}
	for i := range round.Holders {
		round.Holders[i] = holders
		round.Transfers[i] = protocol.Transfer{Shard: i, From: 255, To: holders[1:], Digest: digest[:16]}
	}
	for what, m := range map[string]protocol.Message{
		"a vote":    {Ready: &ready},
		"a round":   {Round: &round},
		"a commit":  {Commit: &protocol.Commit{Digest: digest, Groups: ready.Groups}},
		"an answer": {Applied: &protocol.Applied{Shards: strings.Split(strings.Repeat(digest[:16]+",", 4096), ","), Damaged: make([]int, 4096)}},
	} {
		text, err := json.Marshal(m)
		if err != nil || len(text) > payload*9/10 {
			t.Errorf("%s has %d bytes of %d, %v", what, len(text), payload, err)
		}
		t.Logf("%s: %d bytes", what, len(text))
	}
}
