package coordinator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/round"
)

// voting is a core of a job with members a and b, whose votes it awaits, and what
// messages may say in that job.
func voting(t testing.TB) (*Core, time.Time, protocol.Bounds) {
	job := config.Job{Batch: 4, BNGroup: 1, Queue: 10, QueueShards: 2, Pairs: "shard", Epochs: 2, Steps: 1000, Momentum: 0.99, MinReplicas: 2}
	now := time.Unix(1e9, 0)
	c := NewCore(CoreConfig{
		Instance: "one", Binary: "build", ConfigDigest: "cfg", Training: job,
		Limits: Limits{Joins: -1}, LR: func(float64) float64 { return 0.1 },
	})
	for _, id := range []string{"a", "b"} {
		c.Step(now, Received{protocol.Message{Version: protocol.Version, From: id, Hello: &protocol.Hello{
			ID: id, Name: id, Binary: "build", Config: "cfg", Data: protocol.Data{Kind: "idx", Train: 40, Digest: "data"},
		}}})
	}
	if c.course.State() != round.Voting {
		t.Fatalf("the job is %s", c.course.State())
	}
	return c, now, protocol.BoundsOf(job)
}

// standing is all of a core that a message could change.
func standing(c *Core) string {
	return fmt.Sprintf("%v %v %v %v %+v", c.course.State(), c.course.Last(), c.history.Head(), c.data, c.Status())
}

// FuzzMessages: whatever comes from the network, once it is decoded and validated, the
// core does not panic; strangers change nothing; and no vote or report of another
// round, of whomever, commits a step.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{
		`{"v":3,"from":"a","ready":{"round":1,"step":1,"digest":"g","groups":[{"group":0},{"group":1}],"busy_ms":1}}
{"v":3,"from":"b","ready":{"round":1,"step":1,"digest":"g","groups":[{"group":2},{"group":3}],"busy_ms":1}}
{"v":3,"from":"a","applied":{"round":1,"step":1,"digest":"p","state_digest":"s","shards":["x","y"]}}
{"v":3,"from":"b","applied":{"round":1,"step":1,"digest":"p","state_digest":"s","shards":["x","y"],"damaged":[1]}}`,
		`{"v":3,"from":"a","failed":{"round":1,"step":1,"suspect":"b","error":"x","damaged":[-1],"recounts":[{"group":7}]}}`,
		`{"v":3,"from":"a","failed":{"round":1,"step":1,"not_finite":true,"fatal":true,"recounts":[{"group":1,"key":"not finite"}],"keys":"k"}}`,
		`{"v":3,"from":"a","leaving":{"reason":"x","grace_ms":9223372036854775807}}
{"v":3,"from":"b","heartbeat":{"instance":"one","round":1,"step":1,"phase":"computing","done":1}}`,
		`{"v":3,"from":"s","ready":{"round":1,"step":1,"digest":"g"}}
{"v":3,"from":"","drain":{"replica":"a"}}
{"v":3,"from":"s","drain":{"replica":"b","grace_ms":1}}`,
		`{"v":3,"from":"s","hello":{"id":"s","name":"s","binary":"build","config":"cfg","data":{"kind":"idx","train":40,"digest":"data"},"state":{"step":3,"digest":"d","shards":["a"]},"pending":{"round":1,"step":4,"digest":"g"},"head":{"first":1,"step":3,"term":9},"round":281474976710655}}
{"v":3,"from":"s","recalled":{"from":1,"commits":[{"step":1,"batch":4,"lr":0.1}]}}`,
		`{"v":4,"from":"s","hello":{"id":"a","name":"","binary":"other"}}
{"v":3,"from":"b","term":18446744073709551615,"heartbeat":{}}`,
	} {
		f.Add(seed, uint16(100))
	}
	f.Fuzz(func(t *testing.T, said string, ms uint16) {
		c, now, bounds := voting(t)
		for line := range strings.Lines(said) {
			var m protocol.Message
			if protocol.Decode([]byte(line), &m) != nil || m.Validate(bounds) != nil {
				continue
			}
			stranger := c.roster.Get(m.From) == nil && m.Hello == nil && m.Drain == nil
			other := m.Ready != nil && m.Ready.Round != c.course.Last() || m.Applied != nil && m.Applied.Round != c.course.Last()
			before, head := standing(c), c.history.Head()
			plan := c.Step(now, Received{m})
			if stranger && standing(c) != before {
				t.Fatalf("%s changed\n%s to\n%s", line, before, standing(c))
			}
			for _, a := range plan.Actions {
				if send, ok := a.(Send); stranger && !(ok && send.To == m.From && send.Message.Again != nil) {
					t.Fatalf("%s led to %T %+v", line, a, a)
				}
				if _, commits := a.(Append); commits && other {
					t.Fatalf("%s, of another round, committed a step", line)
				}
			}
			if other && c.history.Head() != head {
				t.Fatalf("%s, of another round, moved the history", line)
			}
			if c.course.State() == round.Appending {
				c.Step(now, Appended{Step: c.history.Head() + 1})
			}
			now = now.Add(time.Duration(ms) * time.Millisecond)
			c.Step(now, Tick{})
		}
	})
}
