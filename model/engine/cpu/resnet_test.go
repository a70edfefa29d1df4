package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// block is a convolution and its BatchNorm with all their buffers.
type block struct {
	conv                       *Convolution
	bn                         BatchNorm
	x, y, z, w, g, dy, dw      []float32
	gamma, beta, dgamma, dbeta []float32
	mean, invStd, variance     []float32
}

// resNet20 is the convolutions of ResNet-20 at 28×28 (16-32-64 channels, three
// blocks of two each), one after the other without the shortcuts, for a batch.
func resNet20(team *Team, batch int) []*block {
	r := rand.New(rand.NewPCG(1, 2))
	var net []*block
	x := random(r, batch*3*28*28)
	add := func(c Conv) {
		n := batch * c.OutC * c.OutH() * c.OutW()
		channel := func() []float32 { return random(r, c.OutC) }
		net = append(net, &block{
			conv: NewConvolution(team, c),
			bn:   BatchNorm{batch, c.OutC, c.OutH() * c.OutW(), true},
			x:    x, y: make([]float32, n), z: make([]float32, n), g: random(r, n), dy: make([]float32, n),
			w: random(r, c.OutC*c.InC*c.Kernel*c.Kernel), dw: make([]float32, c.OutC*c.InC*c.Kernel*c.Kernel),
			gamma: channel(), beta: channel(), dgamma: channel(), dbeta: channel(), mean: channel(), invStd: channel(), variance: channel(),
		})
		x = net[len(net)-1].z
	}
	add(Conv{3, 16, 28, 28, 3, 1, 1})
	in, size := 16, 28
	for _, out := range []int{16, 32, 64} {
		for i := range 6 {
			stride := 1
			if i == 0 && in != out {
				stride = 2
			}
			add(Conv{in, out, size, size, 3, stride, 1})
			in, size = out, (size-1)/stride+1
		}
	}
	return net
}

func (b *block) forward(team *Team, batch int) {
	b.conv.Forward(batch, b.x, b.w, b.y)
	team.BatchNormForward(b.bn, b.y, b.gamma, b.beta, b.z, b.mean, b.invStd, b.variance)
	team.AddReLU(b.z, b.z, b.z)
}

func (b *block) backward(team *Team, batch int, dx []float32) {
	team.ReLUBackward(b.z, b.g, b.g)
	team.BatchNormBackward(b.bn, b.y, b.z, b.g, b.gamma, b.mean, b.invStd, b.dy, b.dgamma, b.dbeta)
	if dx != nil {
		b.conv.BackwardData(batch, b.dy, b.w, dx)
	}
	b.conv.BackwardWeights(batch, b.x, b.dy, b.dw)
}

// BenchmarkResNet20 is the time that the kernels of one training step need, at
// 28×28 and batch 32: the least an engine on top of them can take. The speed
// counts convolutions only.
func BenchmarkResNet20(b *testing.B) {
	const batch = 32
	for _, threads := range []int{1, 2} {
		team := NewTeam(threads)
		net := resNet20(team, batch)
		var flops float64
		for _, block := range net {
			flops += block.conv.flops(batch)
		}
		b.Run(fmt.Sprintf("forward/threads=%d", threads), func(b *testing.B) {
			measure(b, flops, func() {
				for _, block := range net {
					block.forward(team, batch)
				}
			})
		})
		b.Run(fmt.Sprintf("backward/threads=%d", threads), func(b *testing.B) {
			measure(b, 2*flops-net[0].conv.flops(batch), func() {
				for i := len(net) - 1; i > 0; i-- {
					net[i].backward(team, batch, net[i-1].g)
				}
				net[0].backward(team, batch, nil)
			})
		})
		team.Close()
	}
}
