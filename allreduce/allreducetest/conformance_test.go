package allreducetest_test

import (
	"testing"

	"mochi/allreduce"
	"mochi/allreduce/allreducetest"
)

func TestMemoryConformance(t *testing.T) {
	allreducetest.Conformance(t, func(t *testing.T, world int) []allreduce.Transport {
		return allreducetest.NewNetwork("conformance", 1, world, allreducetest.Plan{}).Transports()
	})
}
