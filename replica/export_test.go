package replica

import (
	"math"

	"mochi/replica/data"
)

// What the tests of a whole cluster (package replica_test) need from here.

var (
	TestConfig     = testConfig
	OpenTestEngine = openTestEngine
	OpenTogether   = openTogether
)

// Pictures is a data set in memory.
func Pictures(n, size int) data.Dataset { return pictures{n: n, size: size} }

// FlipBit changes a bit of a queue shard, as faulty memory would. It must be
// called from the replica's own goroutine.
func (r *Replica) FlipBit(shard, row int) {
	for _, s := range r.session.queue.Held() {
		if s.Index == shard {
			at := row*r.session.cfg.Dim + 3
			if s.BF16 != nil {
				s.BF16[at] ^= 1 << 4
				return
			}
			x := &s.Keys[at]
			*x = math.Float32frombits(math.Float32bits(*x) ^ 1<<20)
			return
		}
	}
	panic("the shard is not held")
}

// ChangedWhileStaged is how many staged images had changed when they were used.
func ChangedWhileStaged() int64 { return stagedCounts.changed.Load() }

// QueueBytes is the memory of the keys held.
func (r *Replica) QueueBytes() (n int) {
	for _, s := range r.session.queue.Held() {
		n += 4*len(s.Keys) + 2*len(s.BF16)
	}
	return n
}
