package gorgonia

import (
	"sync/atomic"
	"time"
)

// clock adds up the time of convolutions and matrix products, all threads of
// one counted once.
type clock struct{ nanoseconds atomic.Int64 }

func (c *clock) since(start time.Time) { c.nanoseconds.Add(int64(time.Since(start))) }

// timed is a layer whose time counts. Two readings of the system's clock a
// layer are some 100 ns beside the hundreds of microseconds of a convolution.
type timed struct {
	layer
	clock *clock
}

func (t timed) forward(x, w [][]float32, y []float32) {
	defer t.clock.since(time.Now())
	t.layer.forward(x, w, y)
}

func (t timed) backward(x, w [][]float32, y, dy, dx []float32, dw [][]float32) {
	defer t.clock.since(time.Now())
	t.layer.backward(x, w, y, dy, dx, dw)
}

// KernelTime is the time spent in convolutions and matrix products since the
// engine was made, of all its states together. It may be called from anywhere.
func (e *gorgoniaEngine) KernelTime() time.Duration {
	return time.Duration(e.clock.nanoseconds.Load())
}
