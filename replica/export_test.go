package replica

import "math"

// What the tests of a whole cluster (package replica_test) need from here.

// ModelConfig is what a job's encoders are made with.
var ModelConfig = modelConfig

// Farewell is how long a leaver waits for a coordinator that says nothing.
const Farewell = farewell

// FlipBit changes a bit of a queue shard, as faulty memory would. It must be
// called from the replica's own goroutine.
func (r *Replica) FlipBit(shard, row int) {
	for _, s := range r.session.queue.Held() {
		if s.Index == shard {
			at := row*r.session.job.Dim + 3
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

// QueueBytes is the memory of the keys held.
func (r *Replica) QueueBytes() (n int) {
	for _, s := range r.session.queue.Held() {
		n += 4*len(s.Keys) + 2*len(s.BF16)
	}
	return n
}

// Build makes a replica one that may hold a state.
func Build(r *Replica) { r.built.Store(true) }
