package gorgonia

import (
	"gonum.org/v1/gonum/graph"
	"gorgonia.org/gorgonia"
)

// plan gives every op without a value its memory, so that values which are
// never alive together share a block. Two values may share when every reader
// of the first is an ancestor of the second in the graph: then the order in
// which the tape machine runs independent nodes does not matter.
//
// gorgonia's own addition, which joins gradients where a value had several
// readers, may overwrite its first operand (see accumulator); the sum counts
// as the same value.
//
// It returns the number of floats in all blocks.
func plan(g *gorgonia.ExprGraph) (floats int) {
	for _, b := range newPlanner(g).assign() {
		memory := make([]float32, b.size)
		floats += b.size
		for _, v := range b.values {
			v.op.value = dense(v.op.shape, memory[:v.size:v.size])
		}
	}
	return floats
}

// planner orders the graph's nodes and knows each one's ancestors.
type planner struct {
	g      *gorgonia.ExprGraph
	place  map[int64]int // position in nodes by node ID
	nodes  []planned     // every node after its children
	values []*value      // in the order of nodes
}

// planned is a node as the planner sees it.
type planned struct {
	ancestors bitset // positions of all nodes that run before
	value     *value // whose memory it holds; nil: not planned here
}

// value is one piece of memory.
type value struct {
	op    *op
	size  int
	users []int // positions of the nodes that write or read it
}

// block is memory that several values use one after another.
type block struct {
	size   int
	values []*value
}

func newPlanner(g *gorgonia.ExprGraph) *planner {
	p := &planner{g: g, place: map[int64]int{}}
	for _, n := range g.AllNodes() {
		p.visit(n)
	}
	return p
}

// visit places n after its children and returns its position.
func (p *planner) visit(n *gorgonia.Node) int {
	if i, seen := p.place[n.ID()]; seen {
		return i
	}
	var here planned
	var children []int
	for _, c := range graph.NodesOf(p.g.From(n.ID())) {
		i := p.visit(c.(*gorgonia.Node))
		children = append(children, i)
		here.ancestors.or(p.nodes[i].ancestors)
		here.ancestors.set(i)
	}
	i := len(p.nodes)
	switch o, ours := n.Op().(*op); {
	case ours && o.value == nil:
		here.value = &value{op: o, size: o.shape.TotalSize()}
		p.values = append(p.values, here.value)
	case !ours && len(children) > 0:
		here.value = p.nodes[children[0]].value
	}
	if here.value != nil {
		here.value.users = append(here.value.users, i)
	}
	for _, c := range children {
		if v := p.nodes[c].value; v != nil {
			v.users = append(v.users, i)
		}
	}
	p.nodes = append(p.nodes, here)
	p.place[n.ID()] = i
	return i
}

// assign puts each value into the smallest free block that holds it, or else
// enlarges the largest free one.
func (p *planner) assign() []*block {
	var blocks []*block
	for _, v := range p.values {
		var best *block
		before := p.nodes[v.users[0]].ancestors
		for _, b := range blocks {
			last := b.values[len(b.values)-1]
			if before.hasAll(last.users) && (best == nil || better(b.size, best.size, v.size)) {
				best = b
			}
		}
		if best == nil {
			best = &block{}
			blocks = append(blocks, best)
		}
		best.size = max(best.size, v.size)
		best.values = append(best.values, v)
	}
	return blocks
}

// better says whether a block of size a suits a value of size n better than
// one of size b.
func better(a, b, n int) bool {
	if a >= n && b >= n {
		return a < b
	}
	return a > b
}

// bitset is a set of small integers.
type bitset []uint64

func (s *bitset) grow(words int) {
	for len(*s) < words {
		*s = append(*s, 0)
	}
}

func (s *bitset) set(i int) {
	s.grow(i/64 + 1)
	(*s)[i/64] |= 1 << (i % 64)
}

func (s *bitset) or(t bitset) {
	s.grow(len(t))
	for i, w := range t {
		(*s)[i] |= w
	}
}

func (s bitset) hasAll(members []int) bool {
	for _, i := range members {
		if w := i / 64; w >= len(s) || s[w]&(1<<(i%64)) == 0 {
			return false
		}
	}
	return true
}
