package datatest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var (
	sets  = flag.Int("data.sets", 0, "random data sets; 0: as many as a test has time for")
	first = flag.Uint64("data.seed", 1, "of the first of them")
)

// Each calls check for data sets of consecutive seeds, few of them unless -data.sets says
// otherwise, until the test fails. Each lies in a folder of its own below base, which is
// taken away afterwards.
func Each(t *testing.T, base string, few int, check func(w World, dir string)) {
	t.Helper()
	if *sets > 0 {
		few = *sets
	}
	for n := range few {
		seed := *first + uint64(n)
		dir := filepath.Join(base, fmt.Sprint(seed))
		w, err := Make(seed, dir)
		if err != nil {
			t.Fatal(err)
		}
		if check(w, dir); t.Failed() {
			t.Fatalf("seed %d: %s", seed, w.Told)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
