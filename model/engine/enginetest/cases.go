package enginetest

import (
	"math/rand/v2"
	"testing"

	"mochi/model/network"
)

// testCase is a network and a batch size. name says what it exercises.
type testCase struct {
	name      string
	net       *network.Network
	batch     int
	tolerance float64
}

// cases are small: the naive reference runs each of them many times.
func cases(t testing.TB) []testCase {
	t.Helper()
	var all []testCase
	add := func(name string, batch int, net *network.Network, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, testCase{name, net, batch, Tolerance})
	}
	// Single layers and their neighbours. describe gets the image and returns
	// the feature maps that are pooled and normalised.
	image := func(name string, batch, size int, describe func(b *network.Builder) int) {
		b := network.NewBuilder(name, 3, size)
		x := b.GlobalAvgPool(describe(b))
		net, err := b.Build(x, b.L2Normalize(x))
		add(name, batch, net, err)
	}
	image("conv 3x3", 3, 5, func(b *network.Builder) int {
		return b.Conv("b", b.Conv("a", 0, 4, 3, 1, 1), 5, 3, 1, 1)
	})
	image("conv 3x3 stride 2", 2, 7, func(b *network.Builder) int {
		return b.Conv("b", b.Conv("a", 0, 6, 3, 2, 1), 7, 3, 2, 1)
	})
	image("conv 1x1 stride 2", 2, 6, func(b *network.Builder) int {
		return b.Conv("b", b.Conv("a", 0, 4, 1, 1, 0), 6, 1, 2, 0)
	})
	image("conv 7x7 stride 2", 1, 11, func(b *network.Builder) int {
		return b.Conv("b", b.Conv("a", 0, 4, 7, 2, 3), 3, 5, 1, 0)
	})
	image("batch norm", 3, 4, func(b *network.Builder) int {
		return b.BatchNorm("bn2", b.Conv("b", b.BatchNorm("bn1", b.Conv("a", 0, 4, 3, 1, 1), true), 5, 1, 1, 0), false)
	})
	image("batch norm first", 3, 4, func(b *network.Builder) int {
		return b.Conv("a", b.BatchNorm("bn", 0, true), 5, 3, 1, 1)
	})
	image("add", 2, 5, func(b *network.Builder) int {
		x := b.Conv("a", 0, 4, 3, 1, 1)
		y := b.Conv("b", x, 4, 3, 1, 1)
		return b.Add(y, x, false)
	})
	image("add and relu, three readers", 2, 5, func(b *network.Builder) int {
		x := b.Conv("a", 0, 4, 3, 1, 1)
		y := b.Add(b.Conv("b", x, 4, 3, 1, 1), x, true)
		return b.Add(y, b.Conv("c", x, 4, 1, 1, 0), true)
	})
	image("add to itself", 2, 5, func(b *network.Builder) int {
		x := b.Conv("a", 0, 4, 3, 1, 1)
		return b.Conv("b", b.Add(x, x, false), 3, 1, 1, 0)
	})
	image("relu", 3, 4, func(b *network.Builder) int {
		return b.Conv("b", b.ReLU(b.Conv("a", b.ReLU(0), 4, 3, 1, 1)), 5, 1, 1, 0)
	})
	image("max pool", 2, 9, func(b *network.Builder) int {
		return b.MaxPool(b.MaxPool(b.Conv("a", 0, 4, 3, 1, 1), 3, 2, 1), 2, 2, 0)
	})
	image("max pool of the image", 2, 8, func(b *network.Builder) int {
		return b.Conv("a", b.MaxPool(0, 2, 1, 0), 4, 3, 1, 0)
	})

	// Channels enough for kernels that work on blocks of 16 to 64 of them. One
	// convolution between two BatchNorms each, for in bf16 a single value that
	// rounds the other way moves hundreds in the next layer.
	wide := func(name string, batch, channels, size int, describe func(b *network.Builder) int) {
		b := network.NewBuilder(name, channels, size)
		x := b.GlobalAvgPool(describe(b))
		net, err := b.Build(x, b.L2Normalize(x))
		add(name, batch, net, err)
	}
	wide("wide 7x7 stride 2 and max pool", 2, 3, 32, func(b *network.Builder) int {
		return b.MaxPool(b.BatchNorm("bn", b.Conv("a", 0, 64, 7, 2, 3), true), 3, 2, 1)
	})
	wide("wide 1x1", 3, 64, 7, func(b *network.Builder) int {
		return b.BatchNorm("bn2", b.Conv("a", b.BatchNorm("bn1", 0, true), 128, 1, 1, 0), true)
	})
	wide("wide 3x3", 3, 64, 7, func(b *network.Builder) int {
		return b.BatchNorm("bn2", b.Conv("a", b.BatchNorm("bn1", 0, true), 64, 3, 1, 1), true)
	})
	wide("wide 3x3 stride 2", 3, 64, 8, func(b *network.Builder) int {
		return b.BatchNorm("bn2", b.Conv("a", b.BatchNorm("bn1", 0, true), 128, 3, 2, 1), true)
	})
	wide("wide 1x1 stride 2 and add", 3, 64, 8, func(b *network.Builder) int {
		x := b.BatchNorm("bn1", 0, true)
		return b.Add(b.BatchNorm("bn2", b.Conv("a", x, 128, 3, 2, 1), false), b.BatchNorm("bn3", b.Conv("b", x, 128, 1, 2, 0), false), true)
	})
	wide("wide add", 3, 64, 7, func(b *network.Builder) int {
		return b.Add(b.BatchNorm("bn2", b.Conv("a", 0, 64, 3, 1, 1), false), 0, true)
	})

	b := network.NewBuilder("linear", 3, 4)
	x := b.GlobalAvgPool(0)
	y := b.Linear("fc.2", b.ReLU(b.Linear("fc.0", x, 7)), 5)
	net, err := b.Build(x, b.L2Normalize(y))
	add("linear", 5, net, err)

	b = network.NewBuilder("logits", 3, 4)
	x = b.GlobalAvgPool(b.BatchNorm("bn1", b.Conv("conv1", 0, 8, 3, 1, 1), true))
	net, err = b.Build(x, b.Linear("fc", x, 5))
	add("logits", 5, net, err)

	residual := func(name, arch string, batch int, o network.Options) {
		o.Channels = 3
		net, err := network.Build(arch, o)
		add(name, batch, net, err)
	}
	residual("resnet8, linear head", "resnet8", 4, network.Options{ImageSize: 9, Dim: 6, Head: network.HeadLinear, Width: 4})
	residual("resnet8, mlp head", "resnet8", 5, network.Options{ImageSize: 12, Dim: 3, Head: network.HeadMLP, Width: 3})
	residual("resnet18", "resnet18", 6, network.Options{ImageSize: 35, Dim: 4, Head: network.HeadLinear, Width: 2})
	// Rounding to float32 grows through 50 layers, in any engine.
	residual("resnet50", "resnet50", 6, network.Options{ImageSize: 35, Dim: 4, Head: network.HeadLinear, Width: 1})
	all[len(all)-1].tolerance = 2e-2
	return all
}

// named is one of the cases.
func named(t testing.TB, name string) testCase {
	t.Helper()
	for _, c := range cases(t) {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("there is no case %q", name)
	return testCase{}
}

// fixture is a case's numbers: parameters and buffers of both encoders, images
// and the gradient of the embeddings.
type fixture struct {
	query, key, momentum     []float32
	queryBuffers, keyBuffers []float32
	images, dEmbeddings      []float32
}

func newFixture(c testCase, seed uint64) fixture {
	rng := rand.New(rand.NewPCG(seed, 1))
	normal := func(n int, scale float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(scale * rng.NormFloat64())
		}
		return v
	}
	net := c.net
	f := fixture{
		momentum:    normal(net.NumParams(), 0.1),
		images:      normal(c.batch*net.Channels*net.ImageSize*net.ImageSize, 1),
		dEmbeddings: normal(c.batch*net.Dim, 1),
	}
	// Away from BatchNorm's 1 and 0, where mistakes cancel.
	start := func(seed uint64) (params, buffers []float32) {
		params, buffers = net.Init(seed)
		for i, x := range normal(len(params), 0.1) {
			params[i] += x
		}
		for i, x := range normal(len(buffers), 0.3) {
			buffers[i] += max(x, -0.5)
		}
		return params, buffers
	}
	f.query, f.queryBuffers = start(seed)
	f.key, f.keyBuffers = start(seed + 1)
	return f
}
