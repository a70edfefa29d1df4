package kernel

import "testing"

// Launches of the networks that are trained, and of odd shapes, stay within
// what every device has, and tiles cover every row and channel once.
func TestLaunches(t *testing.T) {
	check := func(what string, l Launch) {
		t.Helper()
		for i, most := range [3]int{1<<31 - 1, 65535, 65535} {
			if l.Grid[i] < 1 || l.Grid[i] > most {
				t.Errorf("%s: grid %v", what, l.Grid)
			}
		}
		if n := l.Block[0] * l.Block[1] * l.Block[2]; n != threads || l.Block[0]*l.Block[1]%32 != 0 {
			t.Errorf("%s: block %v", what, l.Block)
		}
		if l.Shared > 48<<10 || l.Shared%16 != 0 {
			t.Errorf("%s: %d bytes of shared memory", what, l.Shared)
		}
	}
	for _, typ := range []Type{F32, BF16} {
		for _, s := range [][3]int{
			{8, 32 * 112 * 112, 64}, {1, 256 * 112 * 112, 64}, {8, 32 * 56 * 56, 256}, {1, 256 * 7 * 7, 2048}, // ResNet-50
			{8, 64 * 32 * 32, 64}, {1, 2, 1}, {64, 1, 3}, {1, 1 << 27, 8}, {1, 256, 2048},
		} {
			groups, rows, channels := s[0], s[1], s[2]
			sums := Sums(typ, groups, rows, channels, 3)
			for what, tile := range map[string]Tile{"Sums": sums, "Rows": Rows(typ, groups, rows, channels)} {
				check(what, tile.Launch)
				wide := tile.Block[0] * typ.Vector()
				switch {
				case tile.Chunks*tile.Chunk < rows || (tile.Chunks-1)*tile.Chunk >= rows || tile.Grid[1] != tile.Chunks:
					t.Errorf("%s%v: %d chunks of %d rows", what, s, tile.Chunks, tile.Chunk)
				case tile.Grid[0]*wide < channels || (tile.Grid[0]-1)*wide >= channels || tile.Grid[2] != groups:
					t.Errorf("%s%v: grid %v, block %v", what, s, tile.Grid, tile.Block)
				}
			}
			if sums.Chunks > maxChunks {
				t.Errorf("%v: %d chunks to fold", s, sums.Chunks)
			}
			check("Fold", Fold(groups, channels))
			check("AvgPool", AvgPool(typ, groups, rows, channels))
			check("Flat", Flat(groups*rows*channels))
		}
		check("Pool", Pool(typ, 256, 112, 112, 64))
		check("Gather", Gather(typ, 16, 256, 128))
		check("Gather", Gather(typ, 2048, 256, 2048))
	}
	check("Images", Images(256, 224*224))
	check("PerRow", PerRow(65536))
	check("Select", Select(4096))
	check("Scan", Scan(2048, 4096))
	check("PerQuery", PerQuery(4096, 65536))
	check("Points", Points(4096, 1<<20))
	check("Mix", Mix(4096, 1))
	check("Mix", Mix(4096, 2048))
	check("Pieces", Pieces(1<<20))
	check("Weights", Weights([]Weight{{Out: 2048, In: 2048, Taps: 9, Padded: 2048}, {Out: 1, In: 1, Taps: 1, Padded: 1}}))
}
