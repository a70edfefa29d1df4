package config

import (
	"fmt"
	"slices"
	"strconv"

	"mochi/model/limits"
	"mochi/model/network"
)

// Validate reports every fault at once, as Faults in the order of the fields, or
// nil. It knows no data set: that --oracle has labels is checked where the data is opened.
func (c Job) Validate() error {
	var fs Faults
	fields := fieldsOf(&c)
	for _, f := range fields {
		if f.name == "preset" && c.Preset == "" || f.name == "pairs" && c.Pairs == "" || f.name == "ring-lane" && c.RingLane == "" || f.name == "ring-security" && c.RingSecurity == "" {
			continue // made without one; what the queue allows
		}
		f.check(&fs)
	}
	c.checkQueueCopies(&fs)
	c.checkMethod(&fs)
	c.checkMessages(&fs)
	c.checkRelations(&fs)
	at := func(name string) int { return slices.IndexFunc(fields, func(f field) bool { return f.name == name }) }
	slices.SortStableFunc(fs, func(a, b Fault) int { return at(a.Field) - at(b.Field) })
	return fs.err()
}

// checkQueueCopies: all, or a number.
func (c Job) checkQueueCopies(fs *Faults) {
	if r, err := strconv.Atoi(c.QueueCopies); c.QueueCopies != "all" && (err != nil || r < 1) {
		fs.add("queue-copies", "%q is neither \"all\" (every replica holds the whole queue) nor a number of copies, 2 or more", c.QueueCopies)
	} else if err == nil && r < 2 {
		fs.add("queue-copies", "%d: a replica that is lost would take its part of the queue with it; at least 2, or all", r)
	} else if err == nil && c.Pairs == "all" {
		fs.add("pairs", "all needs every key of a pair in one place, and queue-copies %d spreads the queue over replicas; use pairs shard, or queue-copies all", r)
	}
}

// checkMethod: what the model and its loss check too, when they are made.
func (c Job) checkMethod(fs *Faults) {
	limits.BNGroup(c.BNGroup, fs.add)
	limits.Queue(c.Queue, fs.add)
	limits.Temperature(c.Temperature, fs.add)
	limits.Momentum(c.Momentum, fs.add)
	limits.MoCHi(c.MoCHi.N, c.MoCHi.S, c.MoCHi.S2, c.Queue, fs.add)
	limits.SGDMomentum(c.SGDMomentum, fs.add)
	limits.WeightDecay(c.WeightDecay, fs.add)
}

// What messages have room for: NATS refuses those above 1 MiB, after they were packed
// (protocol.Encode). A member votes with figures of each group that it computed (some
// 65 bytes that cannot be packed, and 32 for one that is audited), and a round names
// the holders of each shard and the copies to be made (8 bytes for the digest of a
// shard that travels).
const (
	MostGroups = 8192    // of a batch
	MostShards = 65536   // of the queue, as its range says
	mostCopies = 1 << 16 // of all shards together
)

// checkMessages: what can be said about a step and a round.
func (c Job) checkMessages(fs *Faults) {
	if c.Batch >= 1 && c.BNGroup >= 2 && c.Batch%c.BNGroup == 0 && c.Groups() > MostGroups {
		fs.add("batch", "%d / bn-group %d are %d groups, of which each reports its figures at every step; at most %d: raise bn-group or lower batch",
			c.Batch, c.BNGroup, c.Groups(), MostGroups)
	}
	if r, err := strconv.Atoi(c.QueueCopies); err == nil && r >= 2 && c.QueueShards >= 1 && r > mostCopies/c.QueueShards {
		fs.add("queue-copies", "%d of each of %d shards (--queue-shards) are too many for a round to name; at most %d", r, c.QueueShards, max(2, mostCopies/c.QueueShards))
	}
}

// checkRelations: combinations that cannot work.
func (c Job) checkRelations(fs *Faults) {
	if low := network.SmallestImage(c.Arch); c.ImageSize >= 1 && c.ImageSize < low {
		fs.add("image-size", "%d is too small for %s; at least %d", c.ImageSize, c.Arch, low)
	}
	if c.Batch >= 1 && c.BNGroup >= 2 && c.Batch%c.BNGroup != 0 {
		below := c.Batch / c.BNGroup * c.BNGroup
		hint := fmt.Sprint(below + c.BNGroup)
		if below > 0 {
			hint = fmt.Sprintf("%d or %s", below, hint)
		}
		fs.add("batch", "%d is not a multiple of bn-group %d; use %s", c.Batch, c.BNGroup, hint)
	}
	if n := c.GroupsAtOnce; c.BNGroup >= 2 && c.Batch >= c.BNGroup && c.Batch%c.BNGroup == 0 && n >= 1 && c.Groups()%n != 0 {
		fs.add("groups-at-once", "the %d groups of a batch (batch %d / bn-group %d) are no multiple of %d; use %s",
			c.Groups(), c.Batch, c.BNGroup, n, nearestDivisors(c.Groups(), n))
	}
	if c.Queue >= 1 && c.Batch > c.Queue && !c.Supervised {
		fs.add("batch", "%d keys do not fit a queue of %d; lower batch or raise queue", c.Batch, c.Queue)
	}
	if c.Queue >= 1 && c.QueueShards > c.Queue && c.PairsInShard() {
		fs.add("queue-shards", "%d shards of a queue of %d slots; at most one shard a slot", c.QueueShards, c.Queue)
	}
	if c.Epochs >= 1 && c.LRWarmup >= c.Epochs {
		fs.add("lr-warmup", "%d epochs of %d: the learning rate would never get to its schedule", c.LRWarmup, c.Epochs)
	}
	if c.Supervised && c.Oracle {
		fs.add("oracle", "is of negatives, and --supervised has none")
	}
	if c.Supervised && c.Probe {
		fs.add("probe", "is a classifier beside an encoder, and --supervised trains one already")
	}
	if c.LabelSmoothing > 0 && !c.Supervised {
		fs.add("label-smoothing", "is of --supervised, which is missing")
	}
	if c.MaxReplicas > 0 && c.MinReplicas > c.MaxReplicas {
		fs.add("min-replicas", "%d is more than max-replicas %d", c.MinReplicas, c.MaxReplicas)
	}
	if c.BNGroup >= 2 && c.Batch >= c.BNGroup && c.GroupsAtOnce >= 1 && c.MinReplicas > max(1, c.Units()) {
		work := fmt.Sprintf("the %d groups of a batch (batch %d / bn-group %d)", c.Groups(), c.Batch, c.BNGroup)
		if c.GroupsAtOnce > 1 {
			work = fmt.Sprintf("the units of work of a batch, %d (batch %d / bn-group %d / groups-at-once %d)", c.Units(), c.Batch, c.BNGroup, c.GroupsAtOnce)
		}
		fs.add("min-replicas", "%d is more than %s: some replicas would never have work", c.MinReplicas, work)
	}
}

// nearestDivisors names the divisors of n next to x, which is none.
func nearestDivisors(n, x int) string {
	below := min(x, n)
	for n%below != 0 {
		below--
	}
	if x > n {
		return fmt.Sprint(below)
	}
	above := x
	for n%above != 0 {
		above++
	}
	return fmt.Sprintf("%d or %d", below, above)
}

// Warnings lists what is allowed and probably not meant.
func (c Job) Warnings() []string {
	var ws []string
	if c.MoCHi.S+c.MoCHi.S2 > 0 && c.MoCHiWarmup >= c.Epochs {
		ws = append(ws, fmt.Sprintf("mochi-warmup %d covers all %d epochs: no synthetic negative will be made", c.MoCHiWarmup, c.Epochs))
	}
	if c.MoCHi.N > 0 && c.MoCHi.S+c.MoCHi.S2 == 0 {
		ws = append(ws, fmt.Sprintf("mochi %s makes no synthetic negatives: this is MoCo-v2", c.MoCHi))
	}
	if c.MoCHi.S > 0 && c.PairsInShard() {
		ws = append(ws, fmt.Sprintf("pairs of hard negatives are drawn inside one of %d shards of the queue, not from all %d as published (docs/method.md)", c.Shards(), c.MoCHi.N))
	}
	if c.QueueStorage == "auto" && c.Storage() == "bf16" {
		ws = append(ws, fmt.Sprintf("the queue of %d keys is kept as bf16: as fp32 it would take %d MiB (--queue-storage fp32 keeps it exact)", c.Queue, int64(c.Queue)*int64(c.Dim)*4>>20))
	}
	return ws
}
