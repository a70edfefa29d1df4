package allreducetest_test

import (
	"fmt"
	"testing"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
)

func TestMemoryConformance(t *testing.T) {
	for _, lend := range []uint64{0, allreducetest.Everywhere, 0b10110101, 0b01001010} { // the last two: some links each
		t.Run(fmt.Sprintf("lend=%b", lend), func(t *testing.T) {
			allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
				return allreducetest.NewNetwork("conformance", 1, world, allreducetest.Plan{Lend: lend}).Transports()
			})
		})
	}
}
