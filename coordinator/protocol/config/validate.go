package config

import (
	"fmt"
	"math"
	"mochi/model/network"
	"slices"
	"strconv"
	"strings"
)

// Validate reports every fault at once, as Faults, or nil. It knows no data
// set: that --oracle has labels is checked where the data is opened.
func (c Job) Validate() error {
	var fs Faults
	c.checkNames(&fs)
	c.checkRanges(&fs)
	c.checkRelations(&fs)
	return fs.err()
}

// checkNames: every field that is one of a few words.
func (c Job) checkNames(fs *Faults) {
	presets := append([]string{""}, Presets()...)
	for _, f := range []struct {
		field, value string
		allowed      []string
	}{
		{"preset", c.Preset, presets},
		{"arch", c.Arch, network.Architectures()},
		{"head", c.Head, []string{network.HeadLinear, network.HeadMLP}},
		{"recipe", c.Recipe, []string{"moco-v2", "cifar", "none"}},
		{"schedule", c.Schedule, []string{"cosine", "step"}},
		{"optimizer", c.Optimizer, []string{"sgd", "lars"}},
		{"precision", c.Precision, []string{"fp32", "tf32", "bf16"}},
		{"wire", c.Wire, []string{"fp32", "bf16"}},
		{"queue-storage", c.QueueStorage, []string{"auto", "fp32", "bf16"}},
	} {
		if slices.Contains(f.allowed, f.value) {
			continue
		}
		known := slices.DeleteFunc(f.allowed, func(s string) bool { return s == "" })
		fs.add(f.field, "%q is not known; there are %s%s", f.value, strings.Join(known, ", "), didYouMean(f.value, known))
	}
	if r, err := strconv.Atoi(c.QueueCopies); c.QueueCopies != "all" && (err != nil || r < 1) {
		fs.add("queue-copies", "%q is neither \"all\" (every replica holds the whole queue) nor a number of copies, 2 or more", c.QueueCopies)
	} else if err == nil && r < 2 {
		fs.add("queue-copies", "%d: a replica that is lost would take its part of the queue with it; at least 2, or all", r)
	}
}

// checkRanges: every number on its own.
func (c Job) checkRanges(fs *Faults) {
	for _, f := range []struct {
		field      string
		value      int64
		least, max int64
	}{
		{"image-size", int64(c.ImageSize), 1, 1 << 13},
		{"batch", int64(c.Batch), 1, 1 << 24},
		{"bn-group", int64(c.BNGroup), 2, 1 << 24},
		{"groups-at-once", int64(c.GroupsAtOnce), 1, 1 << 24},
		{"queue", int64(c.Queue), 1, 1 << 30},
		{"queue-shards", int64(c.QueueShards), 1, 1 << 16},
		{"dim", int64(c.Dim), 1, 1 << 16},
		{"mochi-warmup", int64(c.MoCHiWarmup), 0, math.MaxInt32},
		{"lr-warmup", int64(c.LRWarmup), 0, math.MaxInt32},
		{"epochs", int64(c.Epochs), 1, math.MaxInt32},
		{"steps", c.Steps, 0, math.MaxInt64},
		{"knn-every", int64(c.KNNEvery), 0, math.MaxInt32},
		{"checkpoint-every", c.CheckpointEvery, 0, math.MaxInt64},
		{"keep", int64(c.Keep), 0, math.MaxInt32},
		{"min-replicas", int64(c.MinReplicas), 1, math.MaxInt32},
		{"max-replicas", int64(c.MaxReplicas), 0, math.MaxInt32},
	} {
		switch {
		case f.value < f.least && f.field == "bn-group":
			fs.add(f.field, "%d: BatchNorm needs at least 2 samples in a group", f.value)
		case f.value < f.least:
			fs.add(f.field, "%d is too small; at least %d", f.value, f.least)
		case f.value > f.max:
			fs.add(f.field, "%d is too large; at most %d", f.value, f.max)
		}
	}
	for _, f := range []struct {
		field string
		value float64
		want  string
		ok    bool
	}{
		{"temperature", c.Temperature, "above 0", c.Temperature > 0},
		{"momentum", c.Momentum, "at least 0 and below 1", c.Momentum >= 0 && c.Momentum < 1},
		{"lr", c.LR, "above 0", c.LR > 0},
		{"sgd-momentum", c.SGDMomentum, "at least 0 and below 1", c.SGDMomentum >= 0 && c.SGDMomentum < 1},
		{"weight-decay", c.WeightDecay, "at least 0", c.WeightDecay >= 0},
	} {
		if !f.ok || math.IsInf(f.value, 0) {
			fs.add(f.field, "%v must be %s", f.value, f.want)
		}
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"N", c.MoCHi.N}, {"s", c.MoCHi.S}, {"s2", c.MoCHi.S2}} {
		if f.value < 0 || f.value > 1<<24 {
			fs.add("mochi", "%s = %d must be between 0 and %d", f.name, f.value, 1<<24)
		}
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
	if c.Queue >= 1 && c.Batch > c.Queue {
		fs.add("batch", "%d keys do not fit a queue of %d; lower batch or raise queue", c.Batch, c.Queue)
	}
	if c.Queue >= 1 && c.QueueShards > c.Queue {
		fs.add("queue-shards", "%d shards of a queue of %d slots; at most one shard a slot", c.QueueShards, c.Queue)
	}
	if m := c.MoCHi; c.Queue >= 1 && m.N > c.Queue {
		fs.add("mochi", "N = %d hard negatives of a queue of %d; N must not exceed queue", m.N, c.Queue)
	} else if m.N == 0 && (m.S > 0 || m.S2 > 0) {
		fs.add("mochi", "%s asks for synthetic negatives (s, s2) without hard ones to mix (N = 0)", m)
	}
	if c.Epochs >= 1 && c.LRWarmup >= c.Epochs {
		fs.add("lr-warmup", "%d epochs of %d: the learning rate would never get to its schedule", c.LRWarmup, c.Epochs)
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
	if c.QueueStorage == "auto" && c.Storage() == "bf16" {
		ws = append(ws, fmt.Sprintf("the queue of %d keys is kept as bf16: as fp32 it would take %d MiB (--queue-storage fp32 keeps it exact)", c.Queue, int64(c.Queue)*int64(c.Dim)*4>>20))
	}
	return ws
}
