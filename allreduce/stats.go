package allreduce

import "sync/atomic"

// counters are the Group's, see Stats.
type counters struct {
	segments, bytes, duplicates, foreign, damaged atomic.Uint64
}

// Stats counts what a Group's links carried.
type Stats struct {
	Segments   uint64 // data frames sent
	Bytes      uint64 // their payload
	Duplicates uint64 // data frames dropped because they had arrived before
	Foreign    uint64 // frames dropped because they belong to another round, job or sender
	Damaged    uint64 // frames dropped because of their checksum
}

// Stats may be called at any time.
func (g *Group) Stats() Stats {
	return Stats{
		Segments:   g.stats.segments.Load(),
		Bytes:      g.stats.bytes.Load(),
		Duplicates: g.stats.duplicates.Load(),
		Foreign:    g.stats.foreign.Load(),
		Damaged:    g.stats.damaged.Load(),
	}
}
