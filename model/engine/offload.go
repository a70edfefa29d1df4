package engine

// Shard is the keys of one virtual shard of the queue: row r is slot
// Index + r·V. Either Keys or BF16 holds them. Slices belong to the caller and
// are only read.
type Shard struct {
	Index  int       // v
	Keys   []float32 // [rows, d], row r at r·Stride·d
	BF16   []uint16  // the same as bfloat16, the upper halves of float32
	Stride int       // rows from one row to the next; 0 = 1
	Labels []int32   // [rows] classes, −1 unknown; class oracle only

	// Checksums of each row's key and class, for engines that keep a copy
	// elsewhere: where a row's is what it was, the row is too. nil: unknown.
	Sums []uint64 // [rows]
}

// Row is where row r begins in Keys or BF16 of keys of length dim.
func (s *Shard) Row(r, dim int) int { return r * max(s.Stride, 1) * dim }

// LossShape is what an Offload is made for.
type LossShape struct {
	Dim, Batch    int // d, the most queries of a Scan
	Queue, Shards int // K, V
	Hard          int // N
	Pairs, Points int // s, s′
	// PairsInShard: both members of a pair are from one shard, and never the same
	// key. Else they are any two of the hardest, and all shards are in every Scan
	// that a Mix follows.
	PairsInShard bool
	Temperature  float64
}

// Offload computes the parts of one loss (see Panel for what a part is): Scan,
// Hardest at will, Mix. Its device's copy of the keys stays from Scan to Scan;
// only rows whose checksum has changed are copied again. A part does not depend
// on which other shards are scanned with it. It is not safe for concurrent use;
// several Offloads of one engine are independent.
type Offload interface {
	Scan(in OffloadScan) error
	// Hardest writes the similarities of the hard negatives that the last Scan
	// has counted, [Σ Counts], for each query by shard, then row. It comes before
	// Mix, which thins them.
	Hardest(values []float32) error
	// Mix adds the synthetic points, once after a Scan with Counts.
	Mix(in OffloadMix) error
	// Bytes is the memory held on the device.
	Bytes() int64
	// Close frees it.
	Close() error
}

// OffloadScan is one batch of queries against some shards.
type OffloadScan struct {
	Q      []float32 // [b, dim]
	Labels []int32   // [b] classes, or nil without class oracle
	Shards []Shard   // ascending, one at least

	// Counts [b, len(Shards)], if not nil, is filled with how many of a query's
	// Hard most similar keys lie in each shard; Mix must follow for the parts.
	Counts []int32
	// Parts [len(Shards), b, dim+PartScalars] is filled where Counts is nil.
	Parts []float32
}

// OffloadMix is the synthetic points of the queries of a Scan.
type OffloadMix struct {
	Starts  []int32  // [b, V+1] where each shard begins among the Hard most similar of all shards
	Drawers []uint64 // [b] what each query's draws are made from (package loss)
	// Explicit draws in place of Drawers: Pairs, then Points of every query, as
	// places in its list of hard negatives, −1 in First for the query itself.
	First, Second []int32   // [b, Pairs+Points]
	Weight        []float32 // of First

	Parts []float32 // [shards, b, dim+PartScalars], filled
}
