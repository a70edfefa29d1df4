package replica

import (
	"context"
	"fmt"
	"math"
	"slices"

	"mochi/allreduce"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
	"mochi/replica/queue"
)

// auditBytes is how much of the queue is read again after each commit: all of
// it up to K = 32768 at d = 128, in a few ms, longer queues in turns.
const auditBytes = 16 << 20

// negatives is the queue, or this member's part of one that is spread, and what
// moves shards of it between members. With copies on all members every member
// holds all shards; otherwise Round.Holders says who holds which, and there is no
// other record of it: a coordinator that starts again learns from each Hello
// which shards a replica holds, with their digests.
type negatives struct {
	*queue.Queue
	hold []int // shards of this member in the round in hand
}

func newNegatives(job config.Job) *negatives {
	return &negatives{Queue: queue.NewEmpty(job.Queue, job.Dim, job.Shards(), queueStorage(job))}
}

// queueStorage is how a job's queue keeps its keys.
func queueStorage(c config.Job) queue.Storage {
	if c.Storage() == "bf16" {
		return queue.BF16
	}
	return queue.FP32
}

// seat makes room for the shards that this member holds in a round. What it
// held before and gives up stays until the round's first commit: until then
// somebody may still need it.
func (n *negatives) seat(m *membership) {
	n.hold = nil
	for v := range n.Shards() {
		if m.holds(m.rank, v) {
			n.hold = append(n.hold, v)
		}
	}
	if m.self().State != protocol.FromSelf {
		n.Hold(n.hold)
		return
	}
	keep := slices.Clone(n.hold)
	for _, h := range n.Held() {
		if !slices.Contains(keep, h.Index) {
			keep = append(keep, h.Index)
		}
	}
	n.Hold(keep)
}

// lacking is a shard that this member is to hold and has no sound copy of, if
// there is any: the coordinator was wrong about it, or the copy changed by itself.
// A step must not begin with it.
func (n *negatives) lacking() (shard int, lacks bool) {
	damaged := n.Damaged()
	for _, v := range n.hold {
		if !n.Holds(v) || slices.Contains(damaged, v) {
			return v, true
		}
	}
	return 0, false
}

// release drops what seat kept.
func (n *negatives) release() {
	if len(n.Held()) != len(n.hold) {
		n.Hold(n.hold)
	}
}

// digests are those of the shards after all of them have been read again, ""
// for those that are not held or damaged. It may be long before the next
// comparison of copies.
func (n *negatives) digests() []string {
	n.Audit(math.MaxInt)
	shards := n.Digests()
	for _, v := range n.Damaged() {
		shards[v] = ""
	}
	return shards
}

// restore takes the part that is held here of a checkpoint's queue. One of
// another length becomes one of this length (queue.Saved.Resized).
func (n *negatives) restore(c *checkpoint.State, seed uint64) error {
	saved := queue.Saved{Keys: c.Queue, Labels: c.QueueLabels, Ptr: c.QueuePtr, Filled: c.QueueFilled}
	if c.K != n.Len() {
		saved = saved.Resized(n.Len(), n.Dim(), seed)
	}
	return n.Set(saved.Keys, saved.Labels, saved.Ptr, saved.Filled)
}

// damagedError is a shard that cannot be sent: its keys changed by themselves.
type damagedError struct{ shard int }

func (e *damagedError) Error() string {
	return fmt.Sprintf("shard %d of the queue no longer matches its checksum; another copy is needed", e.shard)
}

// transfer makes the copies that a round begins with. Every member passes them
// on around the ring.
func (n *negatives) transfer(ctx context.Context, m *membership, ring Ring) error {
	tag := allreduce.Tag{Step: uint64(m.Step), Bucket: transferTag}
	for _, t := range m.Transfers {
		blob := make([]byte, n.ExportSize(t.Shard))
		if t.From == m.rank {
			if !n.Holds(t.Shard) {
				return &stateError{fmt.Sprintf("round %d wants shard %d of the queue from this replica, which does not hold it", m.Round.Round, t.Shard)}
			}
			if !n.AuditShard(t.Shard) {
				return &damagedError{t.Shard}
			}
			n.Export(t.Shard, blob)
		}
		if err := ring.Broadcast(ctx, tag, t.From, blob); err != nil {
			return fmt.Errorf("receive shard %d of the queue from %s: %w", t.Shard, m.Members[t.From].Name, err)
		}
		tag.Bucket++
		if !slices.Contains(t.To, m.rank) {
			continue
		}
		if err := n.Import(t.Shard, blob); err != nil {
			return err
		}
		if got := n.Digests()[t.Shard]; t.Digest != "" && got != t.Digest {
			return &ringError{fmt.Errorf("shard %d of the queue from %s has the digest %s, not %s", t.Shard, m.Members[t.From].Name, got, t.Digest)}
		}
	}
	return nil
}

// gather puts the queue of a round together at rank 0, keys [K, d] and labels
// [K]: the owners send the shards that rank 0 does not hold. Other ranks get nil.
// Every member of a spread queue calls it, after the same step.
func (n *negatives) gather(ctx context.Context, m *membership, ring Ring, step int64) (keys []float32, labels []int32, err error) {
	if m.rank == 0 {
		keys, labels = n.Keys(), n.Labels()
	}
	tag := allreduce.Tag{Step: uint64(step), Bucket: gatherTag}
	for v, holders := range m.Holders {
		if m.holds(0, v) {
			continue
		}
		blob := make([]byte, n.ExportSize(v))
		if holders[0] == m.rank {
			n.Export(v, blob)
		}
		if err := ring.Broadcast(ctx, tag, holders[0], blob); err != nil {
			return nil, nil, fmt.Errorf("gather shard %d of the queue from %s: %w", v, m.Members[holders[0]].Name, err)
		}
		tag.Bucket++
		if m.rank == 0 {
			n.Unpack(v, blob, keys, labels)
		}
	}
	return keys, labels, nil
}
