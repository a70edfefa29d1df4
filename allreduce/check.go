package allreduce

import (
	"math"

	"mochi/allreduce/codec"
)

// Check looks at a part of the additions of sums a second time: a rank that adds
// wrongly passes the wrong sum on to all, so that no comparison of the results
// shows it. It follows what is added on its way around the ring:
//
//   - each addition is done once more, in float64 and an element at a time instead
//     of by the kernels, and compared to the bit (Found.Wrong);
//   - what a rank passes on to its successor before it is complete, and what it
//     gets from its predecessor, is noted (Found.Sent, Found.Got): the one rank's
//     Sent is the next one's Got, unless it changed in between;
//   - the part of the sum that is complete at a rank must still be there at the end
//     as it was when it was.
//
// That holds in every wire format, since nothing is assumed of the values. What a
// rank adds is taken from Own, which works it out another way.
//
// The part is the blocks of blockLen elements whose number, counted from the step,
// is a multiple of Stride: so after Stride steps every element has been looked at,
// and a fault of many elements shows at once. All ranks must look at the same.
//
// Cost: about 10 ns an element that is looked at, once for each term of Own (twice with
// bf16) and twice for the ring.
type Check struct {
	Step   uint64
	Stride int                               // at least 1: every element
	Offset int                               // of the vector's first element in all that is summed in the step
	Own    func(dst []float32, lo int)       // what this rank adds: elements from lo on of the vector; nil: what is there
	wire   wires                             // of the collective in hand
	found  Found                             // so far
	kept   span                              // what is complete here
	wants  []float32                         // of the blocks of a segment, between before and after
	total  uint64                            // of that, when it was
	room   struct{ own, in, sent []float32 } // scratch, of a block
}

// Found is what a Check has found.
type Found struct {
	Wrong     int    // elements that were added wrongly, or changed
	Sent, Got uint64 // see Check
}

// blockLen is how many elements a Check looks at in a row: four cache lines.
const blockLen = 64

// Found is what was found since the Check was made.
func (c *Check) Found() Found { return c.found }

// Alone is the check of a world of one: data are what it adds.
func (c *Check) Alone(data []float32) {
	if c == nil {
		return
	}
	c.each(0, len(data), func(lo, hi int) {
		c.compare(data[lo:hi], c.own(data, lo, hi))
	})
}

// wires are the formats of a collective: of what comes, of what is passed on (fp32
// where a segment is lent), and of what is complete.
type wires struct{ in, out, sum codec.Wire }

// begin is before anything leaves.
func (c *Check) begin(wire wires) {
	if c != nil {
		c.wire, c.kept, c.total = wire, span{}, 0
	}
}

// starts looks at what this rank passes on first: its own.
func (c *Check) starts(data []float32, s span) {
	if c == nil {
		return
	}
	c.each(s.lo, s.hi, func(lo, hi int) {
		c.compare(data[lo:hi], c.own(data, lo, hi))
		c.found.Sent += c.mark(lo, c.onWire(data[lo:hi]))
	})
}

// before looks at what has arrived, and works out what must come of it.
func (c *Check) before(data []float32, s span, payload []byte) {
	if c == nil {
		return
	}
	c.wants = c.wants[:0]
	c.each(s.lo, s.hi, func(lo, hi int) {
		size := c.wire.in.Size()
		in := grow(&c.room.in, hi-lo)
		c.wire.in.Unpack(in, payload[(lo-s.lo)*size:(hi-s.lo)*size])
		c.found.Got += c.mark(lo, in)
		for i, x := range c.own(data, lo, hi) {
			c.wants = append(c.wants, float32(float64(x)+float64(in[i]))) // float64 has more than twice the bits: it is rounded once
		}
	})
}

// after looks at what has come of it; keep: it is complete here.
func (c *Check) after(data []float32, s span, keep bool) {
	if c == nil {
		return
	}
	wants := c.wants
	c.each(s.lo, s.hi, func(lo, hi int) {
		want := wants[:hi-lo]
		wants = wants[hi-lo:]
		if keep {
			c.wire.sum.Round(want)
		}
		c.compare(data[lo:hi], want)
		if keep {
			c.total += c.mark(lo, data[lo:hi])
		} else {
			c.found.Sent += c.mark(lo, c.onWire(data[lo:hi]))
		}
	})
	if keep {
		if c.kept.hi == 0 {
			c.kept.lo = s.lo
		}
		c.kept.hi = s.hi
	}
}

// passed is after for what goes on in a payload, as the successor will get it. Where that
// is rounded, what this rank has added is compared as well: it is still in data.
func (c *Check) passed(data []float32, s span, payload []byte) {
	if c == nil {
		return
	}
	wants := c.wants
	c.each(s.lo, s.hi, func(lo, hi int) {
		want := wants[:hi-lo]
		wants = wants[hi-lo:]
		size := c.wire.out.Size()
		got := grow(&c.room.sent, hi-lo)
		c.wire.out.Unpack(got, payload[(lo-s.lo)*size:(hi-s.lo)*size])
		c.found.Sent += c.mark(lo, got)
		c.wire.out.Round(want)
		if c.wire.out != codec.FP32 {
			for i, own := range c.own(data, lo, hi) {
				if math.Float32bits(own) != math.Float32bits(data[lo+i]) {
					want[i] = math.Float32frombits(^math.Float32bits(got[i])) // wrong, whatever came of it
				}
			}
		}
		c.compare(got, want)
	})
}

// ends looks at the part that was complete here once more.
func (c *Check) ends(data []float32) {
	if c == nil {
		return
	}
	again, n := uint64(0), 0
	c.each(c.kept.lo, c.kept.hi, func(lo, hi int) {
		again += c.mark(lo, data[lo:hi])
		n++
	})
	if again != c.total {
		c.found.Wrong += n
	}
}

// each calls do with the parts of [lo, hi) that are looked at.
func (c *Check) each(lo, hi int, do func(lo, hi int)) {
	stride := uint64(max(1, c.Stride))
	block := uint64(c.Offset+lo) / blockLen
	block += (stride - (block+c.Step)%stride) % stride
	for ; ; block += stride {
		from := max(lo, int(block)*blockLen-c.Offset)
		if from >= hi {
			return
		}
		if to := min(hi, int(block+1)*blockLen-c.Offset); from < to {
			do(from, to)
		}
	}
}

// own is what this rank adds in data[lo:hi].
func (c *Check) own(data []float32, lo, hi int) []float32 {
	own := grow(&c.room.own, hi-lo)
	if copy(own, data[lo:hi]); c.Own != nil {
		c.Own(own, lo)
	}
	return own
}

// onWire is what the successor will get of values.
func (c *Check) onWire(values []float32) []float32 {
	sent := grow(&c.room.sent, len(values))
	copy(sent, values)
	c.wire.out.Round(sent)
	return sent
}

func (c *Check) compare(got, want []float32) {
	for i, x := range got {
		if math.Float32bits(x) != math.Float32bits(want[i]) {
			c.found.Wrong++
		}
	}
}

// mark is a hash of the values from lo on of the vector: a sum over the elements,
// so that it does not matter in which pieces they come.
func (c *Check) mark(lo int, values []float32) (sum uint64) {
	const odd1, odd2 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9
	for i, x := range values {
		h := uint64(c.Offset+lo+i)*odd1 ^ uint64(math.Float32bits(x))*odd2
		h ^= h >> 29
		sum += h * odd1
	}
	return sum
}

// grow is scratch of n elements.
func grow(room *[]float32, n int) []float32 {
	if cap(*room) < n {
		*room = make([]float32, max(n, blockLen))
	}
	return (*room)[:n]
}
