package schedule

// Sizes of a slice, in bytes of a convolution's input and output, measured on
// an EPYC with 1 MB of L2: too small ones read the weights too often, too
// large ones fall out of the cache. Between the two there is a wide plateau.
const (
	pointwiseBytes = 512 << 10  // 1×1, beside the weights
	windowBytes    = 1600 << 10 // larger kernels, which read every value several times
	storedFactor   = 4          // weight gradients that cannot add up want larger slices
)

// slices cuts the lanes of every phase.
func (s *Schedule) slices(phases []Phase) {
	for i := range phases {
		p := &phases[i]
		n := 0
		p.Split, n = s.slice(p)
		p.Slices = make([][]Slice, s.Lanes)
		for lane := range s.Lanes {
			from, to := s.Lane(lane)
			p.Slices[lane] = cut(from*p.Split, to*p.Split, n)
		}
	}
}

// Lane is the samples [from, to) of a lane; lanes beyond the batch are empty.
func (s *Schedule) Lane(lane int) (from, to int) {
	return lane * s.Batch / s.Lanes, (lane + 1) * s.Batch / s.Lanes
}

// cut divides units into slices of at most n, nearly equal ones, larger first.
func cut(from, to, n int) (slices []Slice) {
	for left := (to - from + n - 1) / n; left > 0; left-- {
		take := (to - from + left - 1) / left
		if n%2 == 0 && take < n { // weight gradients of 3×3 like pairs
			take += take % 2
		}
		take = min(take, to-from)
		if take > 0 {
			slices = append(slices, Slice{from, take})
		}
		from += take
	}
	return slices
}

// slice chooses a phase's units: the part of a sample, and how many at a time.
func (s *Schedule) slice(p *Phase) (split, n int) {
	bytes, target := 0, 0 // of a sample
	divisible, vectors := true, true
	for _, o := range p.Ops {
		switch o.Kind {
		case Conv, WeightGrad, DataGrad:
			l := s.Layers[o.Layer]
			if l.Linear {
				continue
			}
			vectors = false
			size := s.width * (l.In*l.IH*l.IW + l.Out*l.OH*l.OW)
			weights := s.width * l.In * l.Out * l.Kernel * l.Kernel
			want := pointwiseBytes + weights
			if l.Kernel > 1 {
				want = windowBytes
			}
			if o.Kind == WeightGrad && !l.OwnGrad {
				want = max(storedFactor*weights, 2*windowBytes)
			}
			if l.Kernel > 1 || l.Pad > 0 || l.IH != l.Stride*l.OH {
				divisible = false
			}
			bytes, target = max(bytes, size), max(target, want)
		case Images, MaxPool, MaxPoolGrad, AvgPool, AvgPoolGrad:
			divisible, vectors = false, false
		case Stats, Apply, Sums, GradApply:
			vectors = false
		case Add, ReLU, ReLUGrad:
			t := s.Tensors[o.Out[0]]
			vectors = vectors && t.H*t.W == 1
		}
	}
	if vectors {
		return 1, max(1, s.Batch)
	}
	rows := 0
	if bytes == 0 { // no convolution: as little as the cache likes
		target = pointwiseBytes
		for _, t := range s.touched(p) {
			bytes = max(bytes, 2*s.Tensors[t].Bytes())
		}
	}
	for _, t := range s.touched(p) {
		rows = gcd(rows, s.Tensors[t].H)
	}
	split = 1
	for divisible && bytes/split > target*5/4 && split < rows {
		split++
		for rows%split != 0 {
			split++
		}
	}
	if split > 1 {
		return split, 1
	}
	return 1, max(1, target/bytes)
}

// touched lists the tensors of a phase.
func (s *Schedule) touched(p *Phase) (tensors []int) {
	for _, o := range p.Ops {
		for _, t := range append(o.In[:], o.Out[:]...) {
			if t != None {
				tensors = append(tensors, t)
			}
		}
	}
	return tensors
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
