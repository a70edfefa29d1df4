package checkpoint

import (
	"math"

	"mochi/model/network"
)

// NotFinite names a tensor that holds a NaN or an infinity, "" when none does: nothing
// can be trained, or measured, from a state that has one.
func (s *State) NotFinite() string {
	for _, part := range []struct {
		prefix  string
		tensors []network.Tensor
		values  []float32
	}{
		{queryPrefix, s.Net.Params, s.QueryParams}, {queryPrefix, s.Net.Buffers, s.QueryBuffers},
		{keyPrefix, s.Net.Params, s.KeyParams}, {keyPrefix, s.Net.Buffers, s.KeyBuffers},
		{momentumPrefix, s.Net.Params, s.Momentum},
	} {
		for _, t := range part.tensors {
			if !finite(part.values[t.Offset : t.Offset+t.Size]) {
				return part.prefix + t.Name
			}
		}
	}
	if !finite(s.Queue) {
		return "the queue"
	}
	return ""
}

// finite says whether all values are numbers: their sum of products with 0 is one.
func finite(values []float32) bool {
	var sum float32
	for _, v := range values {
		sum += v * 0
	}
	return !math.IsNaN(float64(sum))
}
