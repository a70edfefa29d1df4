package network

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// Init draws the initial parameters and buffers, torchvision's distributions.
// The values of a tensor depend on seed and on the tensor's name, shape and
// distribution only, not on the rest of the network: a backbone starts alike
// under either head. The slices are new, of length NumParams and NumBuffers.
func (n *Network) Init(seed uint64) (params, buffers []float32) {
	params = make([]float32, n.NumParams())
	for _, t := range n.Params {
		t.init(seed, params[t.Offset:t.Offset+t.Size])
	}
	buffers = make([]float32, n.NumBuffers())
	for _, t := range n.Buffers {
		t.init(seed, buffers[t.Offset:t.Offset+t.Size])
	}
	return params, buffers
}

func (t Tensor) init(seed uint64, dst []float32) {
	stream := fnv.New64a()
	stream.Write([]byte(t.Name)) // never fails
	rng := rand.New(rand.NewPCG(seed, stream.Sum64()))
	switch t.Init {
	case InitZero:
		clear(dst)
	case InitOne:
		for i := range dst {
			dst[i] = 1
		}
	case InitKaimingFanOut:
		sigma := math.Sqrt(2 / float64(t.FanOut))
		for i := range dst {
			dst[i] = float32(sigma * rng.NormFloat64())
		}
	case InitLinearUniform:
		bound := 1 / math.Sqrt(float64(t.FanIn))
		for i := range dst {
			dst[i] = float32(bound * (2*rng.Float64() - 1))
		}
	}
}
