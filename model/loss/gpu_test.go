//go:build gpu

package loss

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/engine/cuda"
	"mochi/model/engine/cuda/emulator"
)

// With the tag gpu the whole suite runs on the device, which is an emulated one
// but where gpucheck runs it.
func TestMain(m *testing.M) { os.Exit(emulator.Main(m, true)) }

func init() {
	if eng, err := cuda.New(engine.Config{Threads: 2}); err == nil { // not in the process that builds the emulator
		best = eng.Contrast()
		contrasts["cuda"], shapes = best, 60
	}
}

// The suite would pass on the CPU too.
func TestLossOnGPUIsOnTheGPU(t *testing.T) {
	in := example(1, 4, 8, 20)
	l := mustNew(t, Config{N: 4, S: 2, S2: 2, Temperature: 0.2}, 8, 4, 20)
	mustCompute(t, l, in)
	if l.DeviceBytes() == 0 {
		t.Error("the loss holds nothing on a device")
	}
}

// Where the device does not take a shape, the CPU does.
func TestLossOnGPUOfTooManyShards(t *testing.T) {
	const b, d, k = 3, 8, 2100
	in := example(2, b, d, k)
	cfg := Config{N: 20, S: 30, S2: 9, Temperature: 0.2, Shards: k, Threads: 1}
	l := mustNew(t, cfg, d, b, k)
	got := mustCompute(t, l, in)
	if l.DeviceBytes() != 0 {
		t.Error("the device has taken 2100 shards; contrast_mix has shared memory for 2048")
	}
	sameOutput(t, "2100 shards", got, mustCompute(t, mustNewOn(t, cpu.Contrast{}, cfg, d, b, k), in))
}

// uploaded is the bytes that went to the device since the last call.
func uploaded(t *testing.T) (bytes int) {
	t.Helper()
	for _, line := range emulator.Record(t) {
		n := 0
		if _, err := fmt.Sscanf(line, "upload %d pinned", &n); err == nil {
			bytes += n
		} else if strings.HasPrefix(line, "upload") {
			t.Errorf("%s: the host waits for it", line)
		}
	}
	return bytes
}

// Rows go to the device once, and then those whose checksum has changed:
// bytes a step are those of the new keys. What the device has not been told of
// it does not see: a key that a fault has flipped comes with the checksum that
// an audit gives it.
func TestLossOnGPUKeepsKeys(t *testing.T) {
	emulator.Only(t)
	const b, d, k, v = 4, 16, 3000, 5
	cfg := Config{N: 50, S: 40, S2: 20, Temperature: 0.2, Shards: v, Threads: 1}
	for _, bf16 := range []bool{false, true} {
		size := 4
		if bf16 {
			size = 2
		}
		in := example(7, b, d, k)
		l := mustNew(t, cfg, d, b, k)
		in.split(l)
		in.Shards = stored(in.Shards, d, k, bf16)
		compute := func() Output { return mustCompute(t, l, in) }
		fresh := func() Output { return mustCompute(t, mustNew(t, cfg, d, b, k), in) }
		uploaded(t)
		compute()
		all := uploaded(t)
		if all < k*d*size || all > k*(d*size+8)+100_000 {
			t.Errorf("bf16 %v: %d bytes at first, of %d of keys", bf16, all, k*d*size)
		}
		first := compute()
		rest := uploaded(t) // queries, draws
		flip := func(row int) {
			s := &in.Shards[3]
			if bf16 {
				s.BF16[row*d] ^= 0x8000
			} else {
				s.Keys[row*d] = -s.Keys[row*d]
			}
		}
		for row := range 64 {
			flip(row * 3)
		}
		sameOutput(t, "flipped, with the old checksums", compute(), first)
		if n := uploaded(t); n != rest {
			t.Errorf("bf16 %v: %d bytes where nothing is new, %d before", bf16, n, rest)
		}
		sum(&in.Shards[3], d)
		got := compute()
		if n := uploaded(t) - rest; n < 64*d*size || n > 64*d*size+20_000 {
			t.Errorf("bf16 %v: %d bytes of 64 new keys of %d", bf16, n, d*size)
		}
		if got.NegSim == first.NegSim {
			t.Errorf("bf16 %v: new keys change nothing", bf16)
		}
		sameOutput(t, "new keys", got, fresh())

		// Without checksums they all go, and are seen.
		for s := range in.Shards {
			in.Shards[s].Sums = nil
		}
		flip(1)
		uploaded(t)
		got = compute()
		if n := uploaded(t) - rest; n < k*d*size {
			t.Errorf("bf16 %v: %d bytes without checksums", bf16, n)
		}
		sameOutput(t, "without checksums", got, fresh())
	}
}

// One Loss, whatever shards, formats, classes and batches come one after the
// other, and beside another Loss, has the parts of a new one.
func TestLossOnGPUFollowsShards(t *testing.T) {
	const d, k, v = 9, 260, 7
	cfg := Config{N: 30, S: 20, S2: 10, PairsInShard: true, Temperature: 0.1, Shards: v, Threads: 1}
	r := rand.New(rand.NewPCG(3, 4))
	base := example(9, 90, d, k)
	labels, classes := make([]int32, k), make([]int32, 90)
	for i := range labels {
		labels[i] = int32(r.IntN(4)) - 1
	}
	for i := range classes {
		classes[i] = int32(r.IntN(4)) - 1
	}
	old := []*Loss{mustNew(t, cfg, d, 90, k), mustNew(t, cfg, d, 90, k)}
	held := []int{0, 1, 2, 3, 4, 5, 6}
	bf16, sums, oracle := false, true, false
	for i := range 60 {
		for range r.IntN(4) { // new keys and classes
			slot := r.IntN(k)
			copy(base.Queue[slot*d:(slot+1)*d], randomUnit(r, 1, d))
			labels[slot] = int32(r.IntN(4)) - 1
		}
		switch r.IntN(8) {
		case 0, 1:
			held = r.Perm(v)[:1+r.IntN(v)]
			slices.Sort(held)
		case 2:
			bf16 = !bf16
		case 3:
			sums = !sums
		case 4:
			oracle = !oracle
		}
		var given []int32
		if oracle {
			given = labels
		}
		split := Split(base.Queue, given, d, v)
		all := stored(split, d, k, bf16)
		if r.IntN(10) == 0 {
			all[2] = stored(split, d, k, !bf16)[2]
		}
		if !oracle { // as a queue, whose checksums cover the classes
			for s := range all {
				withLabels := all[s]
				withLabels.Labels = Split(base.Queue, labels, d, v)[s].Labels
				withLabels.Sums = nil
				sum(&withLabels, d)
				all[s].Sums = withLabels.Sums
			}
		}
		var shards []Shard
		for _, h := range held {
			s := all[h]
			if !sums {
				s.Sums = nil
			}
			shards = append(shards, s)
		}
		b := 1 + r.IntN(5)
		if i%20 == 7 {
			b = 65 + r.IntN(20)
		}
		q := Queries{Q: base.Q[:b*d], Samples: base.Samples[:b], Step: int64(i), Mix: i%5 != 0}
		if oracle {
			q.Labels = classes[:b]
		}
		parts := func(l *Loss) []float32 {
			if err := l.Scan(q, shards); err != nil {
				t.Fatal(err)
			}
			if err := l.Mix(l.ownStarts()); err != nil {
				t.Fatal(err)
			}
			return l.Partials()
		}
		fresh, err := New(cfg, d, b, k, best)
		if err != nil {
			t.Fatal(err)
		}
		want := parts(fresh)
		for x, value := range parts(old[r.IntN(2)]) {
			if math.Float32bits(value) != math.Float32bits(want[x]) {
				t.Fatalf("%d: shards %v, bf16 %v, checksums %v, classes %v: part %d is %g, of a new Loss %g", i, held, bf16, sums, oracle, x, value, want[x])
			}
		}
		if err := fresh.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A shard that comes where a longer one was, with a NaN in its last row, has
// nothing of it.
func TestLossOnGPUForgetsKeys(t *testing.T) {
	const b, d, k, v = 3, 8, 41, 4
	cfg := Config{N: 5, S: 4, S2: 3, PairsInShard: true, Temperature: 0.2, Shards: v, Threads: 1}
	in := example(5, b, d, k)
	in.Queue[40*d] = float32(math.NaN()) // row 10 of shard 0
	shards := Split(in.Queue, nil, d, v)
	parts := func(l *Loss, shards []Shard) []float32 {
		if err := l.Scan(in.Queries, shards); err != nil {
			t.Fatal(err)
		}
		if err := l.Mix(l.ownStarts()); err != nil {
			t.Fatal(err)
		}
		return l.Partials()
	}
	l := mustNew(t, cfg, d, b, k)
	parts(l, shards[:1])
	if want := parts(mustNew(t, cfg, d, b, k), shards[1:2]); !slices.Equal(parts(l, shards[1:2]), want) {
		t.Error("the parts of shard 1 are others after shard 0")
	}
}

// Checksums speak of what they came with: not of rows that came without any
// since, nor of classes when only keys have come.
func TestLossOnGPUKnowsWhatItHas(t *testing.T) {
	const b, d, k, v = 3, 8, 200, 1
	cfg := Config{N: 20, S: 4, S2: 3, Temperature: 0.2, Shards: v, Threads: 1}
	in := example(5, b, d, k)
	l := mustNew(t, cfg, d, b, k)
	check := func(what string, classes []int32, s Shard) {
		t.Helper()
		in.Labels, in.Shards = classes, []Shard{s}
		sameOutput(t, what, mustCompute(t, l, in), mustCompute(t, mustNew(t, cfg, d, b, k), in))
	}
	one := stored(Split(in.Queue, nil, d, v), d, k, false)[0]
	other := stored(Split(randomUnit(rand.New(rand.NewPCG(1, 1)), k, d), nil, d, v), d, k, false)[0]
	bare := other
	bare.Sums = nil
	check("keys", nil, one)
	check("others without checksums", nil, bare)
	check("the first again", nil, one)

	classes := []int32{0, 1, 2}
	withClasses := func(s Shard, by int32) Shard {
		s.Labels, s.Sums = make([]int32, k), nil
		for r := range s.Labels {
			s.Labels[r] = (int32(r) + by) % 3
		}
		sum(&s, d)
		return s
	}
	a, c := withClasses(one, 0), withClasses(other, 1)
	keys := c
	keys.Labels = nil // its checksums cover the classes, as a queue's do
	check("with classes", classes, a)
	check("other keys alone", nil, keys)
	check("and their classes", classes, c)
}

// All products are of the same two shapes and exact, in every precision,
// whatever the batch and the shards; and the host waits twice.
func TestLossOnGPUProducts(t *testing.T) {
	emulator.Only(t)
	const d, k, v = 8, 400, 6
	cfg := Config{N: 20, S: 20, S2: 10, Temperature: 0.1, Shards: v, Threads: 1}
	eng, err := cuda.New(engine.Config{Threads: 1, Precision: engine.TF32})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	products := map[string]int{}
	for _, b := range []int{1, 65} {
		l, err := New(cfg, d, b, k, eng.Contrast())
		if err != nil {
			t.Fatal(err)
		}
		in := example(9, b, d, k)
		in.split(l)
		in.Shards = stored(in.Shards, d, k, false)
		mustCompute(t, l, in)
		emulator.Record(t)
		mustCompute(t, l, in)
		waits := 0
		for _, line := range emulator.Record(t) {
			if strings.HasPrefix(line, "sgemm") {
				products[line]++
			}
			if strings.HasPrefix(line, "synchronize") {
				waits++
			}
		}
		if waits != 2 {
			t.Errorf("%d queries: the host waits %d times", b, waits)
		}
		if err := l.Scan(in.Queries, in.Shards[2:4]); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Scan(in.Queries, in.Shards); err == nil {
			t.Error("a loss that is closed scans")
		}
	}
	if len(products) != 2 {
		t.Errorf("products: %v", products)
	}
	for line := range products {
		if !strings.HasSuffix(line, "math 0") {
			t.Errorf("%s: that is not fp32", line)
		}
	}
}
