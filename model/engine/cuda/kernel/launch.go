package kernel

// Launch is the geometry of one launch: blocks, threads of one block, and
// bytes of dynamic shared memory (the only kind that these kernels use).
type Launch struct {
	Grid, Block [3]int
	Shared      int
}

// threads of a block, in every kernel.
const threads = 256

// Tile is a Launch over [groups][rows][channels]: a block has Chunk rows of
// some channels of one group.
type Tile struct {
	Launch
	Chunk  int // rows a block
	Chunks int // blocks along a group's rows
}

// maxChunks bounds the partial sums of a channel, so that folding them is
// little work.
const maxChunks = 256

// block is lanes along the channels, a vector each, and threads/lanes rows.
func block(t Type, channels int) (lanes, rows int) {
	vectors := ceil(channels, t.Vector())
	for lanes = 1; lanes < 32 && lanes < vectors; lanes *= 2 {
	}
	return lanes, threads / lanes
}

func tile(t Type, groups, rows, channels, chunk int) Tile {
	lanes, deep := block(t, channels)
	chunk = ceil(chunk, deep) * deep
	chunks := ceil(rows, chunk)
	return Tile{Launch: Launch{
		Grid:  [3]int{ceil(channels, lanes*t.Vector()), chunks, groups},
		Block: [3]int{lanes, deep, 1},
	}, Chunk: chunk, Chunks: chunks}
}

// Sums is the tile of kernels that sum over rows, so many sums at once: part
// has groups·Chunks·sums·channels values.
func Sums(t Type, groups, rows, channels, sums int) Tile {
	_, deep := block(t, channels)
	l := tile(t, groups, rows, channels, max(8*deep, ceil(rows, maxChunks)))
	l.Shared = threads * t.Vector() * sums * 4
	return l
}

// Rows is the tile of kernels that map values, with coefficients of the
// channels.
func Rows(t Type, groups, rows, channels int) Tile {
	_, deep := block(t, channels)
	return tile(t, groups, rows, channels, max(4*deep, ceil(rows, 65535)))
}

// AvgPool is Sums with all rows of a group in one block.
func AvgPool(t Type, images, pixels, channels int) Launch {
	l := tile(t, images, pixels, channels, pixels)
	l.Shared = threads * t.Vector() * 4
	return l.Launch
}

// Fold is the launch of kernels that add up partial sums: 32 channels a block,
// eight threads a channel.
func Fold(groups, channels int) Launch {
	return Launch{Grid: [3]int{ceil(channels, 32), groups, 1}, Block: [3]int{32, threads / 32, 1}, Shared: threads * 3 * 8}
}

// Pool is one thread for every vector of channels of h×w pixels.
func Pool(t Type, images, h, w, channels int) Launch {
	return Launch{Grid: [3]int{ceil(h*w*ceil(channels, t.Vector()), threads), images, 1}, Block: [3]int{threads, 1, 1}}
}

// Images is one thread for every pixel.
func Images(images, pixels int) Launch {
	return Launch{Grid: [3]int{ceil(pixels, threads), images, 1}, Block: [3]int{threads, 1, 1}}
}

// maxFlat bounds the blocks of a flat loop, whose threads then take several
// steps: 32 blocks on each of 128 multiprocessors.
const maxFlat = 4096

// Flat is a loop over n values, four or more a thread.
func Flat(n int) Launch {
	return Launch{Grid: [3]int{max(1, min(maxFlat, ceil(n, 4*threads))), 1, 1}, Block: [3]int{threads, 1, 1}}
}

// PerRow is one warp for every row.
func PerRow(rows int) Launch {
	return Launch{Grid: [3]int{ceil(rows, threads/32), 1, 1}, Block: [3]int{32, threads / 32, 1}}
}

// Weights is a row of blocks for every weight of the table.
func Weights(table []Weight) Launch {
	largest := 1
	for _, w := range table {
		largest = max(largest, int(w.Out)*int(w.Taps)*int(w.Padded))
	}
	return Launch{Grid: [3]int{min(256, ceil(largest, 4*threads)), len(table), 1}, Block: [3]int{threads, 1, 1}}
}

// Pieces is one block for each of n pieces or tensors, with two doubles a lane
// (a thread is one of optim.Lanes).
func Pieces(n int) Launch {
	return Launch{Grid: [3]int{n, 1, 1}, Block: [3]int{threads, 1, 1}, Shared: 2 * threads * 8}
}

// Select is one block for every query, with a histogram of 2048 bins.
func Select(queries int) Launch {
	return Launch{Grid: [3]int{queries, 1, 1}, Block: [3]int{threads, 1, 1}, Shared: (2048 + 16) * 4}
}

// Scan is one block for every shard and query.
func Scan(shards, queries int) Launch {
	return Launch{Grid: [3]int{shards, queries, 1}, Block: [3]int{threads, 1, 1}, Shared: threads / 32 * 8}
}

// PerQuery is one thread for each of n items of every query.
func PerQuery(queries, n int) Launch {
	return Launch{Grid: [3]int{max(1, ceil(n, threads)), queries, 1}, Block: [3]int{threads, 1, 1}}
}

// Points is one warp for each of n points of every query.
func Points(queries, n int) Launch {
	return Launch{Grid: [3]int{max(1, ceil(n, threads/32)), queries, 1}, Block: [3]int{32, threads / 32, 1}}
}

// Mix is one block for every query, with 24 bytes for every shard held (at
// most 2048 of them: shared memory is 48 KiB).
func Mix(queries, shards int) Launch {
	return Launch{Grid: [3]int{queries, 1, 1}, Block: [3]int{threads, 1, 1}, Shared: ceil(24*shards, 16) * 16}
}

// Gather is one block for some dimensions of every shard and query.
func Gather(t Type, shards, queries, dim int) Launch {
	lanes, deep := block(t, dim)
	return Launch{Grid: [3]int{ceil(dim, lanes*t.Vector()), shards, queries}, Block: [3]int{lanes, deep, 1}, Shared: threads * t.Vector() * 4}
}

func ceil(n, by int) int { return (n + by - 1) / by }
