//go:build gpu

package cuda

import (
	"fmt"
	"os"

	"mochi/model/engine/cuda/driver"
)

// withoutGraphs is an environment variable: "off" launches every kernel of
// every step by itself, to compare, or to see which one fails.
const withoutGraphs = "MOCHI_CUDA_GRAPHS"

// replay is launches that a program puts into the work stream again and again:
// one by one the first time, when libraries set themselves up, captured as a
// graph the second, and with one call from then on. What differs from call to
// call (where images come from, copies to the host, events that the host waits
// for) stays outside.
type replay struct {
	launches []launch
	ran      bool
	graph    driver.Graph
	space    driver.Memory // of cuDNN's algorithms, as the graph knows it
}

// put puts the launches into the work stream. Where something cannot be
// captured the engine goes on without graphs, and Info says so.
func (e *gpu) put(r *replay) error {
	if r.space != e.space { // the graph's is gone
		if err := r.graph.Close(); err != nil {
			return err
		}
	}
	var err error
	if e.single == "" && r.ran && !r.graph.Made() {
		r.graph, err = e.work.Capture(r.each)
		r.space = e.space
	}
	r.ran = true
	if e.single == "" && err == nil && r.graph.Made() {
		err = r.graph.Launch(e.work)
		if err == nil {
			return nil
		}
	}
	if err != nil {
		e.single = err.Error()
	}
	return r.each()
}

func (r *replay) each() error {
	for _, f := range r.launches {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// openGraphs says why there are no graphs, if there are none, and gives cuBLAS
// the memory without which a capture would allocate.
func (e *gpu) openGraphs() (err error) {
	if os.Getenv(withoutGraphs) == "off" {
		e.single = withoutGraphs + " is off"
	} else if err := e.device.Graphs(); err != nil {
		e.single = err.Error()
	}
	// Without graphs too: which algorithm a product takes may depend on it.
	bytes := 4 << 20 // NVIDIA's recommendation
	if e.device.Major >= 9 {
		bytes = 32 << 20
	}
	if e.blasMem, err = e.device.Alloc(bytes); err != nil {
		return fmt.Errorf("workspace of cuBLAS: %w", err)
	}
	err = e.blas.SetWorkspace(e.blasMem)
	if err == nil && e.heads != e.blas {
		err = e.heads.SetWorkspace(e.blasMem)
	}
	return err
}
