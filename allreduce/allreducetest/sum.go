package allreducetest

import (
	"context"
	"fmt"

	"mochi/allreduce"
)

// SumOfRanks all-reduces n elements of rank+1 and checks what comes out.
func SumOfRanks(ctx context.Context, g *allreduce.Group, step uint64, n int) error {
	data := make([]float32, n)
	for i := range data {
		data[i] = float32(g.Rank() + 1)
	}
	if err := g.AllReduceSum(ctx, allreduce.Tag{Step: step}, data); err != nil {
		return err
	}
	for i, v := range data {
		if want := float32(g.World() * (g.World() + 1) / 2); v != want {
			return fmt.Errorf("wrong sum: element %d of step %d is %g, want %g", i, step, v, want)
		}
	}
	return nil
}
