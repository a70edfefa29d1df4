package cpu

// Add computes z = x + y; all three have equal length.
func (t *Team) Add(x, y, z []float32) {
	need("Add", "y", len(y), len(x))
	need("Add", "z", len(z), len(x))
	t.elementwise(elementwise{loop: t.set.add, z: z, x: x, y: y})
}

// AddReLU computes z = max(x + y, 0).
func (t *Team) AddReLU(x, y, z []float32) {
	need("AddReLU", "y", len(y), len(x))
	need("AddReLU", "z", len(z), len(x))
	t.elementwise(elementwise{loop: t.set.addReLU, z: z, x: x, y: y})
}

// ReLU computes y = max(x, 0); NaN stays NaN. y may be x.
func (t *Team) ReLU(x, y []float32) {
	need("ReLU", "y", len(y), len(x))
	t.elementwise(elementwise{loop: t.set.relu, z: y, x: x, y: x})
}

// ReLUBackward computes dx = dy where forward's output y is above 0, else 0:
// the gradient of ReLU, and of AddReLU with respect to either term (plain Add
// passes dy through). dx may be dy.
func (t *Team) ReLUBackward(y, dy, dx []float32) {
	need("ReLUBackward", "dy", len(dy), len(y))
	need("ReLUBackward", "dx", len(dx), len(y))
	t.elementwise(elementwise{loop: t.set.mask, z: dx, x: dy, y: y})
}

// elementwise is the job z = f(x, y); a task is a range of elements.
type elementwise struct {
	loop    func(z, x, y []float32)
	z, x, y []float32
}

const elementwiseBlock = 16 << 10

func (t *Team) elementwise(j elementwise) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs.elementwise = j
	t.do(ceil(len(j.x), elementwiseBlock), &t.jobs.elementwise)
	t.jobs.elementwise = elementwise{}
}

func (j *elementwise) task(_ *worker, task int) {
	first := task * elementwiseBlock
	last := min(first+elementwiseBlock, len(j.x))
	j.loop(j.z[first:last], j.x[first:last], j.y[first:last])
}
