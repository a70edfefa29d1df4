package loss

import (
	"errors"
	"slices"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// device computes the loss where the engine keeps a copy of the keys: Scan and
// Mix, up to the parts. The fold is this CPU's.
type device struct {
	l       *Loss
	offload engine.Offload

	drawers []uint64 // [b]

	// Explicit draws, as places in the lists: pairs, then points of each query.
	first, second []int32
	weight        []float32
	keys          []nearest.Key // of one query
}

// newDevice is nil where contrast has none, or not for this loss.
func newDevice(l *Loss, contrast engine.Contrast) (*device, error) {
	offloader, ok := contrast.(engine.Offloader)
	if !ok {
		return nil, nil
	}
	c := l.cfg
	offload, err := offloader.NewOffload(engine.LossShape{Dim: l.dim, Batch: l.maxBatch, Queue: l.k, Shards: c.Shards,
		Hard: c.N, Pairs: c.S, Points: c.S2, PairsInShard: c.PairsInShard, Temperature: c.Temperature})
	if errors.Is(err, engine.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &device{l: l, offload: offload}, nil
}

// scan is Scan of the queries and shards that l has; with list, l.hard is
// filled for Hardest.
func (d *device) scan(list bool) error {
	l := d.l
	resize(&l.parts, len(l.shards)*l.b*l.PartialFloats())
	l.hard.starts = append(l.hard.starts[:0], 0)
	in := engine.OffloadScan{Q: l.q.Q, Labels: l.q.Labels, Shards: l.shards, Parts: l.parts}
	resize(&l.hard.values, 0)
	resize(&l.hard.counts, l.b*len(l.shards))
	if len(l.shards) == 0 {
		return nil
	}
	if !l.mixing() {
		return d.offload.Scan(in)
	}
	in.Counts = l.hard.counts
	if err := d.offload.Scan(in); err != nil {
		return err
	}
	total := int32(0)
	for i := range l.b {
		for _, n := range l.hard.counts[i*len(l.shards) : (i+1)*len(l.shards)] {
			total += n
		}
		l.hard.starts = append(l.hard.starts, total)
	}
	if !list && l.q.Draws == nil {
		return nil
	}
	resize(&l.hard.values, int(total))
	return d.offload.Hardest(l.hard.values)
}

// mix adds the synthetic points to the parts: l.starts say of which.
func (d *device) mix() error {
	l := d.l
	if len(l.shards) == 0 {
		return nil
	}
	in := engine.OffloadMix{Starts: l.starts, Parts: l.parts}
	if l.q.Draws != nil {
		d.places()
		in.First, in.Second, in.Weight = d.first, d.second, d.weight
		return d.offload.Mix(in)
	}
	resize(&d.drawers, l.b)
	for i, sample := range l.q.Samples {
		d.drawers[i] = newDrawer(l.cfg.Seed, l.q.Step, sample).h
	}
	in.Drawers = d.drawers
	return d.offload.Mix(in)
}

// places turns explicit draws, by rank, into places in the lists, by row.
func (d *device) places() {
	l, draws := d.l, d.l.q.Draws
	s, s2 := l.cfg.S, l.cfg.S2
	d.first, d.second, d.weight = d.first[:0], d.second[:0], d.weight[:0]
	for i := range l.b {
		from, to := l.hard.starts[i], l.hard.starts[i+1]
		d.keys = d.keys[:0]
		for at := from; at < to; at++ {
			d.keys = append(d.keys, nearest.NewKey(l.hard.values[at], int(at-from)))
		}
		slices.Sort(d.keys)
		for t := range s {
			d.first = append(d.first, d.keys[draws.First[i*s+t]].Index())
			d.second = append(d.second, d.keys[draws.Second[i*s+t]].Index())
			d.weight = append(d.weight, draws.Alpha[i*s+t])
		}
		for t := range s2 {
			d.first = append(d.first, -1)
			d.second = append(d.second, d.keys[draws.Partner[i*s2+t]].Index())
			d.weight = append(d.weight, draws.Beta[i*s2+t])
		}
	}
}
