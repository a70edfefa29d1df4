//go:build gpu

package cuda

import (
	"math"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/emulator"
)

// mixed is all that a Scan, Hardest and Mix give.
type mixed struct {
	counts        []int32
	values, parts []float32
}

// mixAll runs one batch through an Offload that has all shards.
func mixAll(t *testing.T, o engine.Offload, shape engine.LossShape, q []float32, shards []engine.Shard) (m mixed) {
	t.Helper()
	b := len(q) / shape.Dim
	m.counts = make([]int32, b*len(shards))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := engine.OffloadScan{Q: q, Shards: shards, Counts: m.counts}
	if shards[0].Labels != nil {
		for i := range b {
			in.Labels = append(in.Labels, int32(i%3))
		}
	}
	check(o.Scan(in))
	starts, total := []int32{}, int32(0)
	for i := range b {
		at := int32(0)
		for s := range shards {
			starts = append(starts, at)
			at += m.counts[i*len(shards)+s]
		}
		starts = append(starts, at)
		total += at
	}
	m.values = make([]float32, total)
	check(o.Hardest(m.values))
	drawers := make([]uint64, b)
	for i := range drawers {
		drawers[i] = uint64(i+1) * 0x9e3779b97f4a7c15
	}
	m.parts = make([]float32, len(shards)*b*(shape.Dim+engine.PartScalars))
	check(o.Mix(engine.OffloadMix{Starts: starts, Drawers: drawers, Parts: m.parts}))
	return m
}

// labelled are shards whose keys have classes.
func labelled(shards []engine.Shard, dim int) []engine.Shard {
	for v := range shards {
		for r := range len(shards[v].Keys) / dim {
			shards[v].Labels = append(shards[v].Labels, int32(r%4)-1)
		}
	}
	return shards
}

func bf16Of(shards []engine.Shard) (all []engine.Shard) {
	for _, s := range shards {
		one := engine.Shard{Index: s.Index}
		for _, x := range s.Keys {
			one.BF16 = append(one.BF16, uint16(math.Float32bits(x)>>16))
		}
		all = append(all, one)
	}
	return all
}

// However many passes and runs the memory for similarities allows, results are
// the same bits.
func TestOffloadInPassesAndRuns(t *testing.T) {
	const dim, k, v, b = 7, 500, 5, 150
	shape := engine.LossShape{Dim: dim, Batch: b, Queue: k, Shards: v, Hard: 40, Pairs: 20, Points: 9, Temperature: 0.5}
	e := start(t, engine.Config{})
	q := values(b*dim, 3)
	for i, shards := range [][]engine.Shard{labelled(keysOf(k, dim, v), dim), bf16Of(keysOf(k, dim, v)), labelled(keysOf(k, dim, v), dim), bf16Of(keysOf(k, dim, v))} {
		shape.PairsInShard = i > 1
		o := newLoss(t, e, shape).(*offload)
		want := mixAll(t, o, shape, q, shards)
		if o.lines != 192 || o.run != v {
			t.Errorf("%d queries a pass and %d shards a run, want all", o.lines, o.run)
		}
		for _, c := range []struct{ bound, lines, run int }{{0, 64, 1}, {4 * 128 * (64*3 + dim), 192, 1}, {4 * 128 * (128 + dim), 128, 1}, {4 * 128 * (192 + dim) * 2, 192, 2}, {4 * 128 * (192 + dim) * 3, 192, 3}} {
			o := newLoss(t, e, shape).(*offload)
			o.bound = c.bound
			got := mixAll(t, o, shape, q, shards)
			if o.lines != c.lines || o.run != c.run {
				t.Errorf("within %d bytes: %d queries a pass and %d shards a run, want %d and %d", c.bound, o.lines, o.run, c.lines, c.run)
			}
			if !slices.Equal(got.counts, want.counts) || !slices.Equal(got.values, want.values) || !slices.Equal(got.parts, want.parts) {
				t.Errorf("%d queries a pass and %d shards a run give other bits", o.lines, o.run)
			}
		}
	}
	emulator.Record(t)
}

// What is out of turn or of the wrong size is refused, before any kernel could
// read outside its arrays; and all memory comes back.
func TestOffloadRefuses(t *testing.T) {
	emulator.Only(t)
	e := start(t, engine.Config{})
	free := func() int64 { return free(t, e) }
	before := free()
	const dim, k, v, b = 8, 90, 3, 2
	shape := engine.LossShape{Dim: dim, Batch: b, Queue: k, Shards: v, Hard: 10, Pairs: 4, Points: 3, Temperature: 0.2}
	o, err := e.Contrast().(engine.Offloader).NewOffload(shape)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(says string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	q, shards := values(b*dim, 1), keysOf(k, dim, v)
	counts, drawers, parts := make([]int32, b*v), make([]uint64, b), make([]float32, v*b*(dim+engine.PartScalars))
	refuse("follow a scan", o.Mix(engine.OffloadMix{Starts: make([]int32, b*(v+1)), Drawers: drawers, Parts: parts}))
	refuse("follow a scan", o.Hardest(nil))
	refuse("no shards", o.Scan(engine.OffloadScan{Q: q, Counts: counts[:0]}))
	refuse("24 values of queries", o.Scan(engine.OffloadScan{Q: values(3*dim, 1), Shards: shards, Counts: counts}))
	refuse("ascending", o.Scan(engine.OffloadScan{Q: q, Shards: []engine.Shard{shards[1], shards[0], shards[2]}, Counts: counts}))
	refuse("has 29 rows", o.Scan(engine.OffloadScan{Q: q, Shards: []engine.Shard{shards[0], {Index: 1, Keys: shards[1].Keys[dim:]}, shards[2]}, Counts: counts}))
	for _, starts := range [][]int32{{0, 3, 4, 11}, {1, 2, 3, 4}, {0, 3, 2, 10}, {0, 10, 10, 10}, {0, -1, 5, 10}} {
		if err := o.Scan(engine.OffloadScan{Q: q, Shards: shards, Counts: counts}); err != nil {
			t.Fatal(err)
		}
		refuse("hard negatives", o.Mix(engine.OffloadMix{Starts: append(slices.Clone(starts), starts...), Drawers: drawers, Parts: parts}))
		refuse("once", o.Mix(engine.OffloadMix{Starts: make([]int32, b*(v+1)), Drawers: drawers, Parts: parts}))
	}
	mixAll(t, o, shape, q, shards)
	if spent := e.DeviceTime()["gpu_loss"]; spent <= 0 {
		t.Errorf("%v on the device", spent)
	}
	if got := before - free(); got != o.Bytes() || got == 0 {
		t.Errorf("%d bytes are held, it says %d", got, o.Bytes())
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if err := o.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	refuse("closed", o.Scan(engine.OffloadScan{Q: q, Shards: shards, Counts: counts}))
	if now := free(); now != before || len(e.offloads) != 0 {
		t.Errorf("%d bytes and %d losses are left", before-now, len(e.offloads))
	}
	emulator.Record(t)
}
