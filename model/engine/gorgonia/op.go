package gorgonia

import (
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// op is a node of the expression graph whose numbers are computed by package
// kernel: it satisfies gorgonia.Op and gorgonia.SDOp.
//
// An op writes into memory that was planned when the graph was compiled (see
// plan.go) and returns the same tensor at every step, so that running the
// graph leaves no garbage behind.
type op struct {
	name  string       // unique in its graph: gorgonia merges nodes with equal hashes
	ranks []int        // number of axes of each input
	shape tensor.Shape // of the value

	// run computes the value from those of the inputs. A panic in it becomes an
	// error: the tape machine calls it on a goroutine of its own.
	run func(in [][]float32, out []float32) error
	// wrt says which inputs have a gradient, and diff appends the nodes that
	// compute them (gorgonia's symbolic differentiation). Both are nil for ops
	// that are not differentiated.
	wrt  []bool
	diff func(inputs gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error)

	value   *tensor.Dense // of shape; set before the first run
	operand [][]float32   // the inputs of the run in progress
}

// Do implements gorgonia.Op.
func (o *op) Do(inputs ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v", o.name, p)
		}
	}()
	o.operand = o.operand[:0]
	for _, v := range inputs {
		o.operand = append(o.operand, v.(*tensor.Dense).Float32s())
	}
	if err := o.run(o.operand, o.value.Float32s()); err != nil {
		return nil, err
	}
	return o.value, nil
}

// Type implements gorgonia.Op: Tensor float32 → … → Tensor float32. The type
// system takes the result apart and recycles it, so it is made anew each time.
func (o *op) Type() hm.Type {
	types := make([]hm.Type, 0, len(o.ranks)+1)
	for _, r := range append(o.ranks[:len(o.ranks):len(o.ranks)], len(o.shape)) {
		types = append(types, gorgonia.TensorType{Dims: r, Of: tensor.Float32})
	}
	return hm.NewFnType(types...)
}

// DiffWRT implements gorgonia.SDOp.
func (o *op) DiffWRT(inputs int) []bool {
	if o.wrt == nil {
		return make([]bool, inputs)
	}
	return o.wrt
}

// SymDiff implements gorgonia.SDOp.
func (o *op) SymDiff(inputs gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	if o.diff == nil {
		return nil, fmt.Errorf("%s has no derivative", o.name)
	}
	return o.diff(inputs, output, grad)
}

// The rest of gorgonia.Op. Neither pointers to inputs are returned nor inputs
// overwritten, so that every op gets a register of its own.

func (o *op) Arity() int                                            { return len(o.ranks) }
func (o *op) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) { return o.shape, nil }
func (o *op) ReturnsPtr() bool                                      { return false }
func (o *op) CallsExtern() bool                                     { return false }
func (o *op) OverwritesInput() int                                  { return -1 }
func (o *op) WriteHash(h hash.Hash)                                 { fmt.Fprint(h, o.name) }
func (o *op) String() string                                        { return o.name }
func (o *op) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

// dense is a tensor header over existing memory.
func dense(shape tensor.Shape, values []float32) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))
}
