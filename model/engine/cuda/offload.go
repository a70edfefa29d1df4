//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
)

// Contrast computes the loss on the device (engine.Offloader). Its panels, for
// shapes that the device does not take, are the CPU's.
func (e *gpu) Contrast() engine.Contrast { return contrast{e: e} }

type contrast struct {
	cpu.Contrast
	e *gpu
}

// offload implements engine.Offload with the kernels of contrast.cu and
// products by cuBLAS, which are all of two shapes, whatever the batch and the
// shards are: tile queries and one shard. cuBLAS may take another algorithm for
// another shape, and then the bits of a part would depend on what else was
// asked. Similarities are fp32 in every precision; keys in bf16 are widened
// for the products.
//
// A Scan goes over the queries in passes and the shards in runs, such that
// similarities take no more than simsBytes (or one shard's of one tile). The
// host waits once in a Scan, and once in a Mix.
type offload struct {
	e     *gpu
	shape engine.LossShape
	bound int // simsBytes, of tests less
	mirror
	room       // of the Scan in progress
	device     driver.Memory
	host       driver.Pinned // its first part: what the host reads or writes
	begin, end driver.Event  // of what the device's clock times

	// The Scan in progress.
	queries int
	shards  []int   // numbers
	counts  []int32 // [queries, shards] hard negatives
	counted bool    // it has them, for Hardest and Mix
	last    int     // which of found has them
	closed  bool
}

// tile is how many queries a product has: fewer are padded.
const tile = 64

// columns of a shard on the device are a multiple of this.
const columnStep = 64

// simsBytes bounds the similarities, and keys widened, that are there at once:
// what stays in a second-level cache.
const simsBytes = 32 << 20

// Bounds of the kernels: shared memory of contrast_mix, a grid's second
// dimension, and sums in fixed point.
const (
	mostShards  = 2048
	mostQueries = 65535
	mostPoints  = 2_000_000
)

func (c contrast) NewOffload(shape engine.LossShape) (engine.Offload, error) {
	o, err := newOffload(c.e, shape)
	if err != nil {
		return nil, fmt.Errorf("engine cuda: loss: %w", err)
	}
	return o, nil
}

func newOffload(e *gpu, shape engine.LossShape) (made *offload, err error) {
	o := &offload{e: e, shape: shape, bound: simsBytes}
	o.dim, o.pitch = shape.Dim, ceil(ceil(shape.Queue, shape.Shards), columnStep)*columnStep
	held := min(shape.Shards, shape.Queue)
	if held > mostShards || shape.Batch > mostQueries || shape.Pairs+shape.Points > mostPoints || held*o.pitch > math.MaxInt32 {
		return nil, fmt.Errorf("%d queries, %d shards of %d columns, %d synthetic points: %w: at most %d, %d of %d in all, %d",
			shape.Batch, held, o.pitch, shape.Pairs+shape.Points, engine.ErrUnsupported, mostQueries, mostShards, math.MaxInt32, mostPoints)
	}
	leave, err := e.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if o.begin, err = e.device.NewTimer(); err != nil {
		return nil, err
	}
	if o.end, err = e.device.NewTimer(); err != nil {
		return nil, errors.Join(err, o.begin.Close())
	}
	e.offloads = append(e.offloads, o)
	return o, nil
}

func (o *offload) Scan(in engine.OffloadScan) error {
	o.counted, o.shards, o.queries = false, o.shards[:0], 0
	return o.call("scan", func() error { return o.scan(in) })
}

func (o *offload) Hardest(values []float32) error {
	return o.call("read the hard negatives", func() error { return o.hardest(values) })
}

func (o *offload) Mix(in engine.OffloadMix) error {
	err := o.call("mix", func() error { return o.mix(in) })
	o.counted = false
	return err
}

// call has the device for one of them. When it fails nothing goes on behind the
// caller's back.
func (o *offload) call(action string, f func() error) error {
	leave, err := o.e.enter()
	if err == nil {
		defer leave()
		if o.closed {
			err = errors.New("it is closed")
		} else if err = f(); err != nil {
			err = errors.Join(err, o.e.work.Synchronize())
		}
	}
	if err != nil {
		return fmt.Errorf("engine cuda: loss: %s: %w", action, err)
	}
	return nil
}

func (o *offload) scan(in engine.OffloadScan) error {
	b, width := len(in.Q)/o.dim, o.dim+engine.PartScalars
	switch {
	case b < 1 || b > o.shape.Batch || len(in.Q) != b*o.dim || in.Labels != nil && len(in.Labels) != b:
		return fmt.Errorf("%d values of queries and %d labels, made for up to %d queries × %d", len(in.Q), len(in.Labels), o.shape.Batch, o.dim)
	case len(in.Shards) == 0:
		return errors.New("no shards")
	case in.Counts != nil && (o.shape.Hard < 1 || len(in.Counts) != b*len(in.Shards)):
		return fmt.Errorf("%d counts of %d hard negatives", len(in.Counts), o.shape.Hard)
	case in.Counts == nil && len(in.Parts) != len(in.Shards)*b*width:
		return fmt.Errorf("%d values of parts, want %d", len(in.Parts), len(in.Shards)*b*width)
	}
	for i, s := range in.Shards {
		if s.Index < 0 || i > 0 && s.Index <= in.Shards[i-1].Index || rowsOf(&s, o.dim) != o.rowsOf(s.Index) || in.Labels != nil && len(s.Labels) != o.rowsOf(s.Index) {
			return fmt.Errorf("shard %d has %d rows and %d labels, want %d, in ascending order", s.Index, rowsOf(&s, o.dim), len(s.Labels), o.rowsOf(s.Index))
		}
	}
	o.queries = b
	for _, s := range in.Shards {
		o.shards = append(o.shards, s.Index)
	}
	if err := o.fit(in.Shards); err != nil {
		return o.full(err, kindOf(in.Shards))
	}
	o.fill(in)
	work := o.e.work
	if err := errors.Join(o.begin.Record(work), work.Send(o.device.Pointer, o.host, 0, o.scanned)); err != nil {
		return err
	}
	for from := 0; from < b; from += o.lines {
		if err := o.pass(from, in.Counts != nil, in.Labels != nil); err != nil {
			return err
		}
	}
	if in.Counts == nil {
		return o.take(in.Parts)
	}
	if err := o.launch("contrast_list", kernel.PerQuery(b, max(o.shape.Hard, len(o.shards))), o.at(o.found[o.last]), o.at(o.foundCounts[o.last]),
		int32(o.shape.Hard), int32(o.pitch), int32(len(o.shards)), o.at(o.values), o.at(o.columns), o.at(o.shardCounts)); err != nil {
		return err
	}
	if err := work.Receive(o.host, o.shardCounts, o.at(o.shardCounts), 4*len(in.Counts)); err != nil {
		return err
	}
	if err := o.wait(); err != nil {
		return err
	}
	copy(in.Counts, driver.View[int32](o.host, o.shardCounts, len(in.Counts)))
	o.counts, o.counted = append(o.counts[:0], in.Counts...), true
	return nil
}

// fill writes a Scan's input into pinned memory.
func (o *offload) fill(in engine.OffloadScan) {
	q := driver.View[float32](o.host, o.q, o.stride*o.dim)
	clear(q[copy(q, in.Q):]) // the queries that pad the last tile
	copy(driver.View[int32](o.host, o.classes, o.queries), in.Labels)
	places := driver.View[int32](o.host, o.places, o.shape.Shards)
	for v := range places {
		places[v] = -1
	}
	for at, v := range o.shards {
		driver.View[int32](o.host, o.rows, len(o.shards))[at] = int32(o.rowsOf(v))
		driver.View[int32](o.host, o.numbers, len(o.shards))[at] = int32(v)
		places[v] = int32(at)
	}
}

// pass scans the queries from `from` on that similarities have room for.
func (o *offload) pass(from int, hard, oracle bool) error {
	lines := min(o.lines, o.stride-from)
	n, width := min(lines, o.queries-from), o.dim+engine.PartScalars
	labels, classes := driver.Pointer(0), driver.Pointer(0)
	if oracle {
		labels, classes = o.mirror.labels.Pointer, o.at(o.classes).Add(4*from)
	}
	perTwo := float32(1 / (o.shape.Temperature * math.Ln2))
	o.last = 1
	for s := 0; s < len(o.shards); s += o.run {
		run := min(o.run, len(o.shards)-s)
		keys := o.column(s)
		if o.kind == kernel.BF16 {
			n := run * o.pitch * o.dim
			if err := o.launch("to_f32", kernel.Flat(n), int64(n), keys, o.at(o.wide)); err != nil {
				return err
			}
			keys = o.at(o.wide)
		}
		// tiles calls f with a tile's queries, shard of the run, its keys, similarities and part.
		tiles := func(f func(q, keys, sims, part driver.Pointer) error) error {
			for i := range run {
				for t := 0; t < lines; t += tile {
					if err := f(o.at(o.q).Add(4*(from+t)*o.dim), keys.Add(4*i*o.pitch*o.dim),
						o.at(o.sims).Add(4*(i*lines+t)*o.pitch), o.part(s+i).Add(4*(from+t)*width)); err != nil {
						return err
					}
				}
			}
			return nil
		}
		if err := tiles(func(q, keys, sims, part driver.Pointer) error {
			return o.e.blas.Product(tile, o.pitch, o.dim, q, false, keys, true, sims)
		}); err != nil {
			return err
		}
		if hard {
			old, oldCounts := driver.Pointer(0), driver.Pointer(0)
			list := func(i int) driver.Pointer { return o.at(o.found[i]).Add(8 * from * o.shape.Hard) }
			counts := func(i int) driver.Pointer { return o.at(o.foundCounts[i]).Add(4 * from) }
			if s > 0 {
				old, oldCounts = list(o.last), counts(o.last)
			}
			o.last = 1 - o.last
			if err := o.launch("contrast_select", kernel.Select(n), o.at(o.sims), int32(run), int32(o.pitch), int32(lines), int32(s*o.pitch),
				o.at(o.rows).Add(4*s), labels, classes, int32(o.shape.Hard), old, oldCounts, list(o.last), counts(o.last)); err != nil {
				return err
			}
		}
		if err := o.launch("contrast_scan", kernel.Scan(run, n), o.at(o.sims), int32(o.pitch), int32(lines), int32(s*o.pitch), o.at(o.rows).Add(4*s),
			labels, classes, perTwo, int32(o.dim), int32(o.stride), o.part(s).Add(4*from*width)); err != nil {
			return err
		}
		if err := tiles(func(q, keys, sims, part driver.Pointer) error {
			return o.e.blas.ProductInto(tile, o.dim, o.pitch, sims, false, keys, false, part, width)
		}); err != nil {
			return err
		}
	}
	return nil
}

func (o *offload) hardest(values []float32) error {
	if !o.counted {
		return errors.New("it must follow a scan for them")
	}
	total := 0
	for _, n := range o.counts {
		total += int(n)
	}
	if len(values) != total {
		return fmt.Errorf("%d values, there are %d hard negatives", len(values), total)
	}
	if total == 0 {
		return nil
	}
	n := o.queries * o.shape.Hard
	if err := errors.Join(o.e.work.Receive(o.host, o.values, o.at(o.values), 4*n), o.e.work.Synchronize()); err != nil {
		return err
	}
	at := 0
	for i := range o.queries {
		have := 0
		for _, n := range o.counts[i*len(o.shards) : (i+1)*len(o.shards)] {
			have += int(n)
		}
		copy(values[at:at+have], driver.View[float32](o.host, o.values, n)[i*o.shape.Hard:])
		at += have
	}
	return nil
}

func (o *offload) mix(in engine.OffloadMix) error {
	b, v, held, points := o.queries, o.shape.Shards, len(o.shards), o.shape.Pairs+o.shape.Points
	explicit := in.Drawers == nil
	switch {
	case !o.counted:
		return errors.New("it must follow a scan for hard negatives, once")
	case len(in.Starts) != b*(v+1) || len(in.Parts) != held*b*(o.dim+engine.PartScalars):
		return fmt.Errorf("%d starts and %d values of parts, want %d and %d", len(in.Starts), len(in.Parts), b*(v+1), held*b*(o.dim+engine.PartScalars))
	case !o.shape.PairsInShard && held != min(v, o.shape.Queue):
		return fmt.Errorf("%d of %d shards are here: pairs of any two hard negatives need all", held, min(v, o.shape.Queue))
	case !explicit && len(in.Drawers) != b || explicit && (o.shape.PairsInShard || len(in.First) != b*points || len(in.Second) != b*points || len(in.Weight) != b*points):
		return fmt.Errorf("draws of %d queries from %d drawers or %d, %d and %d explicit ones, which must not stay inside a shard", b, len(in.Drawers), len(in.First), len(in.Second), len(in.Weight))
	}
	if err := o.fillMix(in); err != nil {
		return err
	}
	work := o.e.work
	if err := errors.Join(o.begin.Record(work), work.Send(o.at(o.first), o.host, o.first, o.mixed-o.first)); err != nil {
		return err
	}
	first, local, numbers, values, columns := o.at(o.first), o.at(o.local), o.at(o.numbers), o.at(o.values), o.at(o.columns)
	shard, i, j, weight := o.at(o.shard), o.at(o.i), o.at(o.j), o.at(o.weight)
	sim, wi, wj := o.at(o.sim), o.at(o.wi), o.at(o.wj)
	keep, dim := int32(o.shape.Hard), int32(o.dim)
	perTwo := float32(1 / (o.shape.Temperature * math.Ln2))
	weights := o.at(o.found[0]) // the lists are made
	pairable, together := driver.Pointer(0), int32(1)
	if o.shape.PairsInShard {
		pairable, together = o.at(o.pairable), 0
	}

	if err := o.launch("contrast_thin", kernel.Points(b, held), keep, int32(v), first, local, int32(held), numbers, o.at(o.shardCounts), values, columns); err != nil {
		return err
	}
	if explicit {
		if err := work.Send(shard, o.host, o.shard, o.explicit-o.shard); err != nil {
			return err
		}
	} else if points > 0 {
		if err := o.launch("contrast_draw", kernel.PerQuery(b, points), int32(o.shape.Pairs), int32(o.shape.Points), o.at(o.drawers), int32(v),
			first, local, pairable, o.at(o.places), shard, i, j, weight); err != nil {
			return err
		}
	}
	if points > 0 {
		if err := o.launch(kernel.Name("contrast_points", o.kind), kernel.Points(b, points), int32(points), o.at(o.q), o.column(0), dim, keep,
			values, columns, shard, i, j, weight, sim, wi, wj); err != nil {
			return err
		}
	}
	if err := o.launch("contrast_mix", kernel.Mix(b, held), int32(points), together, shard, i, j, sim, wi, wj, perTwo, keep, values, int32(v), first, local,
		int32(held), numbers, dim, int32(o.stride), o.part(0), o.at(o.low), weights); err != nil {
		return err
	}
	if err := o.launch(kernel.Name("contrast_gather", o.kind), kernel.Gather(o.kind, held, b, o.dim), o.column(0), dim, keep, columns, weights,
		o.at(o.low), int32(v), first, local, numbers, int32(o.stride), o.part(0)); err != nil {
		return err
	}
	return o.take(in.Parts)
}

// fillMix writes a Mix's input into pinned memory. Starts are from other
// holders too: no kernel may read outside its lists because of them.
func (o *offload) fillMix(in engine.OffloadMix) error {
	b, v, held, points := o.queries, o.shape.Shards, len(o.shards), o.shape.Pairs+o.shape.Points
	first, local := driver.View[int32](o.host, o.first, b*(v+1)), driver.View[int32](o.host, o.local, b*(v+1))
	pairable := driver.View[int32](o.host, o.pairable, b*(v+1))
	copy(first, in.Starts)
	for i := range b {
		row, begin, next, pairs := in.Starts[i*(v+1):(i+1)*(v+1)], int32(0), 0, int32(0)
		if row[0] != 0 || row[v] > int32(o.shape.Hard) {
			return fmt.Errorf("the hard negatives of query %d begin at %d and end at %d of %d", i, row[0], row[v], o.shape.Hard)
		}
		for s := range v {
			n := row[s+1] - row[s]
			local[i*(v+1)+s], pairable[i*(v+1)+s] = begin, pairs
			if n > 1 {
				pairs += n
			}
			found := n
			if next < held && o.shards[next] == s {
				found = o.counts[i*held+next]
				begin += found
				next++
			}
			if n < 0 || n > found || !o.shape.PairsInShard && n != found {
				return fmt.Errorf("%d hard negatives of query %d in shard %d, where %d were found", n, i, s, found)
			}
		}
		local[i*(v+1)+v], pairable[i*(v+1)+v] = begin, pairs
	}
	if in.Drawers != nil {
		copy(driver.View[uint64](o.host, o.drawers, b), in.Drawers)
		return nil
	}
	clear(driver.View[int32](o.host, o.shard, b*points)) // the only one
	for i := range in.First {
		n := in.Starts[i/points*(v+1)+v]
		if in.First[i] < -1 || in.First[i] >= n || in.Second[i] < 0 || in.Second[i] >= n {
			return fmt.Errorf("explicit draw %d is of places %d and %d among %d hard negatives", i, in.First[i], in.Second[i], n)
		}
	}
	copy(driver.View[int32](o.host, o.i, b*points), in.First)
	copy(driver.View[int32](o.host, o.j, b*points), in.Second)
	copy(driver.View[float32](o.host, o.weight, b*points), in.Weight)
	return nil
}

// take brings the parts to the host and waits for them.
func (o *offload) take(parts []float32) error {
	n := o.dim + engine.PartScalars
	if err := o.e.work.Receive(o.host, o.parts, o.at(o.parts), 4*len(o.shards)*o.stride*n); err != nil {
		return err
	}
	if err := o.wait(); err != nil {
		return err
	}
	padded := driver.View[float32](o.host, o.parts, len(o.shards)*o.stride*n)
	for s := range o.shards {
		copy(parts[s*o.queries*n:(s+1)*o.queries*n], padded[s*o.stride*n:])
	}
	return nil
}

// wait waits for the device, and counts its time.
func (o *offload) wait() error {
	if err := errors.Join(o.end.Record(o.e.work), o.e.work.Synchronize()); err != nil {
		return err
	}
	return add(&o.e.spent.loss, o.begin, o.end)
}

func (o *offload) launch(name string, g kernel.Launch, args ...any) error {
	return o.e.kernels.Launch(o.e.work, name, g, args...)
}

// at is an array's place on the device.
func (o *offload) at(offset int) driver.Pointer { return o.device.Add(offset) }

// part is where those of a shard begin.
func (o *offload) part(shard int) driver.Pointer {
	return o.at(o.parts).Add(4 * shard * o.stride * (o.dim + engine.PartScalars))
}

// rowsOf is how many slots a shard has.
func (o *offload) rowsOf(shard int) int {
	return engine.ShardRows(o.shape.Queue, o.shape.Shards, shard)
}

func (o *offload) Bytes() int64 {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	return int64(o.allocated())
}

func (o *offload) allocated() int { return o.device.Bytes + o.mirror.allocated() }

func (o *offload) Close() error {
	if o.closed {
		return nil
	}
	leave, err := o.e.enter()
	if err != nil {
		return fmt.Errorf("engine cuda: close a loss: %w", err)
	}
	defer leave()
	o.closed = true
	o.e.offloads = slices.DeleteFunc(o.e.offloads, func(other *offload) bool { return other == o })
	if err := errors.Join(o.mirror.release(), o.device.Release(), o.host.Release(), o.begin.Close(), o.end.Close()); err != nil {
		return fmt.Errorf("engine cuda: close a loss: %w", err)
	}
	return nil
}
