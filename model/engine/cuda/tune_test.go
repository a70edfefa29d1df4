//go:build gpu

package cuda

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/model/engine"
	"mochi/model/engine/cuda/emulator"
	"mochi/model/engine/cuda/library"
)

// Algorithms are measured once for each convolution, kept, and taken from there
// by every engine after; what is damaged or no longer accepted is measured
// again and kept again.
func TestMeasuredAlgorithmsAreKept(t *testing.T) {
	emulator.Only(t)
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	net := small(t)
	run := func(cfg engine.Config) (measured int, numerics string) {
		t.Helper()
		e := start(t, cfg)
		emulator.Record(t)
		_, p := ready(t, e, net, engine.Spec{Batch: 2})
		measured = count(emulator.Record(t), "measure direction")
		out := make([]float32, p.calls.Embeddings())
		if err := p.Forward(values(p.calls.Images(), 1), out); err != nil {
			t.Fatal(err)
		}
		if err := p.Backward(out, make([]float32, net.NumParams()), nil); err != nil {
			t.Fatal(err)
		}
		convs := emulator.Record(t)
		if fast := count(convs, "algorithm 5"); cfg.Tune && fast != count(convs, "conv ") || !cfg.Tune && fast > 0 {
			t.Errorf("tune %v: %d convolutions of %d by the fastest algorithm", cfg.Tune, fast, count(convs, "conv "))
		}
		return measured, e.Info().Numerics
	}
	tune := engine.Config{Tune: true}
	if n, numerics := run(engine.Config{}); n != 0 || strings.Contains(numerics, "measured") {
		t.Errorf("not asked for: measured %d times, %q", n, numerics)
	}
	first, name := run(tune)
	if first < 10 || !strings.Contains(name, "measured as ") {
		t.Errorf("at first: measured %d times, %q", first, name)
	}
	same := func(what string, cfg engine.Config, want int) {
		t.Helper()
		if n, numerics := run(cfg); n != want || numerics != name {
			t.Errorf("%s: measured %d times, want %d; %q, before %q", what, n, want, numerics, name)
		}
	}
	same("again", tune, 0)
	same("another device of the kind", engine.Config{Tune: true, Device: 1}, 0)
	same("another precision", engine.Config{Tune: true, Precision: engine.TF32}, first)
	same("again after those", tune, 0)

	// Damage: one bit of each choice but the name.
	files, err := filepath.Glob(filepath.Join(dir, "mochi", "algorithms", "*.bin"))
	if err != nil || len(files) != 2*first+1 {
		t.Fatalf("%d files, %v; want %d", len(files), err, 2*first+1)
	}
	choices, err := library.OpenChoices()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		kept, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(kept), "{") {
			continue // the name
		}
		kept[2] ^= 1
		if err := os.WriteFile(f, kept, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	same("damaged", tune, first)
	same("repaired", tune, 0)

	// An algorithm that this cuDNN does not accept.
	const key = "Emulated GPU, cuDNN 8.9.7, forward of 2×12×12×4 * 8×5×5 stride 1 pad 2 in fp32"
	if err := choices.Forget(key); err != nil {
		t.Fatal(err)
	}
	if _, err := choices.Get(key, func() (library.Algorithm, error) { return library.Algorithm{Number: 2, Math: 3}, nil }); err != nil {
		t.Fatal(err)
	}
	same("not accepted", tune, 1)
	same("accepted again", tune, 0)

	// Where nothing can be kept, two replicas would decide differently.
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", file)
	if _, err := New(tune); err == nil || !strings.Contains(err.Error(), "tune: a folder for measured algorithms") {
		t.Errorf("a file where the folder should be: %v", err)
	}
}
