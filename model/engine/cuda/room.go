//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
)

// room is where the arrays of one Scan lie in an offload's memory, bytes from
// its start; the names are those of package kernel's table. Those up to shared
// are at the same places in pinned memory.
type room struct {
	stride     int // queries, padded to whole tiles
	lines, run int // queries of a pass, shards of a run

	q, classes, rows, numbers, places, scanned int // what a Scan sends, and its end
	first, local, pairable, drawers, mixed     int // what a Mix sends
	shard, i, j, weight, explicit              int // what a Mix with explicit draws sends
	shardCounts, values, parts                 int // what the host is given
	shared                                     int

	found, foundCounts                    [2]int
	columns, sims, wide, sim, wi, wj, low int
	bytes                                 int
}

// roomFor plans for b queries against so many shards.
func (o *offload) roomFor(b, shards int, kind kernel.Type) (r room) {
	shape, pitch := o.shape, o.pitch
	r.stride = ceil(b, tile) * tile
	r.lines = min(r.stride, max(o.bound/(4*pitch)/tile, 1)*tile)
	column := 4 * r.lines
	if kind == kernel.BF16 {
		column += 4 * shape.Dim
	}
	r.run = min(shards, max(o.bound/(column*pitch), 1))

	n, points, v, keep := r.stride, shape.Pairs+shape.Points, shape.Shards, shape.Hard
	take := func(bytes int) (at int) {
		at = r.bytes
		r.bytes += array(bytes)
		return at
	}
	r.q, r.classes, r.rows, r.numbers, r.places = take(4*n*shape.Dim), take(4*n), take(4*shards), take(4*shards), take(4*v)
	r.scanned = r.bytes
	r.first, r.local, r.pairable, r.drawers = take(4*n*(v+1)), take(4*n*(v+1)), take(4*n*(v+1)), take(8*n)
	r.mixed = r.bytes
	r.shard, r.i, r.j, r.weight = take(4*n*points), take(4*n*points), take(4*n*points), take(4*n*points)
	r.explicit = r.bytes
	r.shardCounts, r.values = take(4*n*shards), take(4*n*keep)
	r.parts = take(4 * n * shards * (shape.Dim + engine.PartScalars))
	r.shared = r.bytes

	r.columns = take(4 * n * keep)
	for i := range r.found {
		r.found[i], r.foundCounts[i] = take(8*n*keep), take(4*n)
	}
	r.sims = take(4 * r.run * r.lines * pitch)
	if kind == kernel.BF16 {
		r.wide = take(4 * r.run * pitch * shape.Dim)
	}
	r.sim, r.wi, r.wj, r.low = take(4*n*points), take(4*n*points), take(4*n*points), take(4*n*shards)
	return r
}

// array is bytes, to a multiple of 256.
func array(bytes int) int { return (bytes + 255) / 256 * 256 }

func ceil(n, by int) int { return (n + by - 1) / by }

// fit makes room for the queries against shards, and brings their keys.
func (o *offload) fit(shards []engine.Shard) error {
	o.room = o.roomFor(o.queries, len(shards), kindOf(shards))
	if o.room.bytes > o.device.Bytes {
		err := o.device.Release()
		if err == nil {
			o.device, err = o.e.device.Alloc(o.room.bytes)
		}
		if err != nil {
			return err
		}
	}
	if o.shared > o.host.Bytes() {
		err := o.host.Release()
		if err == nil {
			o.host, err = o.e.device.AllocPinned(o.shared / 4)
		}
		if err != nil {
			return err
		}
	}
	return o.bring(o.e, shards)
}

// needs is the device memory of b queries against so many shards.
func (o *offload) needs(b, shards int, kind kernel.Type) (keys, rest int) {
	m := o.mirror
	m.kind = kind
	_, _, _, stage := m.staging()
	return m.bytes(shards), o.roomFor(b, shards, kind).bytes + stage
}

// full says of an allocation that failed what the loss needs, and frees all
// that it has: less may be asked next.
func (o *offload) full(cause error, kind kernel.Type) error {
	var full *driver.OutOfMemory
	if !errors.As(cause, &full) {
		return cause
	}
	keys, rest := o.needs(o.queries, len(o.shards), kind)
	cause = errors.Join(cause, o.mirror.release(), o.device.Release())
	return fmt.Errorf("%d queries against %d of %d shards of a queue of %d need %d MiB of device memory, %d MiB of them for the keys; "+
		"lower --queue or the batch (--bn-group), or store keys as --queue-storage bf16: %w",
		o.queries, len(o.shards), min(o.shape.Shards, o.shape.Queue), o.shape.Queue, (keys+rest)>>20, keys>>20, cause)
}

// pendingLossBytes estimates the memory that open losses have yet to allocate:
// at most, all shards in fp32 and their largest batch.
func (e *gpu) pendingLossBytes() (bytes int64) {
	for _, o := range e.offloads {
		if len(o.slots) > 0 {
			continue // it has scanned
		}
		keys, rest := o.needs(o.shape.Batch, min(o.shape.Shards, o.shape.Queue), kernel.F32)
		bytes += int64(keys + rest)
	}
	return bytes
}
