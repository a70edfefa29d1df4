package splitmix_test

import (
	"fmt"
	"testing"

	"mochi/model/splitmix"
)

// The reference generator's first outputs from seed 1234567, as published with
// the reference implementation of SplitMix64: its state after n steps is
// seed + n·γ, so the (n+1)-th output is Mix(seed + n·γ).
func TestMixIsSplitMix64(t *testing.T) {
	const gamma = 0x9e3779b97f4a7c15
	state := uint64(1234567)
	for i, want := range []uint64{
		6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
	} {
		if got := splitmix.Mix(state); got != want {
			t.Errorf("output %d of seed 1234567 is %d, want %d", i, got, want)
		}
		state += gamma
	}
}

func ExampleMix() {
	seed, epoch, sample := uint64(1), uint64(3), uint64(42)
	fmt.Printf("%016x\n", splitmix.Mix(splitmix.Mix(splitmix.Mix(seed)^epoch)^sample))
	// Output: 1181b3c765a17628
}
