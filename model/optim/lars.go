package optim

import (
	"fmt"
	"math"
	"sort"
	"sync"
	"sync/atomic"

	"mochi/model/network"
)

// Trust is LARS's coefficient η, as in the reference implementations of
// Barlow Twins and MoCo v3.
const Trust = 0.001

// The order of a norm's sum, the same for every engine (engine.Update): a
// tensor is cut into pieces of PieceLen values, and value i of a piece goes to
// lane i mod Lanes. A lane adds its values in their order, from 0; then lane l
// takes in lane l + n/2, of the n that are left, until one is. The sums of the
// pieces are added the same way, piece p in lane p mod Lanes. So a GPU has a
// thread for every lane and a block for every piece.
const (
	PieceLen = 1 << 14
	Lanes    = 256
)

// Piece is the part [From, To) of the flat parameters, all of one tensor.
type Piece struct{ Tensor, From, To int }

// Pieces cuts a network's parameters, tensor by tensor.
func Pieces(net *network.Network) (pieces []Piece) {
	for i, t := range net.Params {
		for from := 0; from < t.Size; from += PieceLen {
			pieces = append(pieces, Piece{i, t.Offset + from, t.Offset + min(from+PieceLen, t.Size)})
		}
	}
	return pieces
}

// Adapts says whether LARS has a rate for a tensor: not for vectors.
func Adapts(t network.Tensor) bool { return len(t.Shape) > 1 }

// Rate is what a tensor has of its own in engine.Update.
type Rate struct {
	End   int     // behind its last value, in the flat parameters
	Decay float32 // λ; 0 for vectors
	Rate  float32 // q; 1 for vectors
}

// LARS is the host's part of engine.Update for engines that compute there: the
// rates that make SGD the layer-wise adaptive one of You et al. 2017, in the
// form of facebookresearch/moco-v3. Of a tensor w with more than one dimension,
// gradient g:
//
//	u ← g + λ·w           (float32, rounded at each operation)
//	q = η·‖w‖/‖u‖         (float64, then float32; 1 where either is 0)
//
// Norms are float64 sums of exact squares in the order above: results do not
// depend on the number of threads, and all replicas get the same bits. It costs
// one reading of both vectors.
type LARS struct {
	pieces  []Piece   // of the tensors that adapt
	sums    []squares // of each
	tensors []span    // of pieces, by parameter
	rates   []Rate
	threads int

	decay          float32
	weights, grads []float32
	next           atomic.Int64
	running        sync.WaitGroup
	background     func() // made once, so that a step allocates nothing
}

// squares are Σ w² and Σ u².
type squares struct{ w, u float64 }

// span is pieces [from, to).
type span struct{ from, to int }

// NewLARS makes LARS for a network's parameters.
func NewLARS(net *network.Network, threads int) *LARS {
	l := &LARS{threads: max(threads, 1), tensors: make([]span, len(net.Params)), rates: make([]Rate, len(net.Params))}
	for _, p := range Pieces(net) {
		if !Adapts(net.Params[p.Tensor]) {
			continue
		}
		s := &l.tensors[p.Tensor]
		if s.to == 0 {
			s.from = len(l.pieces)
		}
		l.pieces = append(l.pieces, p)
		s.to = len(l.pieces)
	}
	for i, t := range net.Params {
		l.rates[i] = Rate{End: t.Offset + t.Size, Rate: 1}
	}
	l.sums = make([]squares, len(l.pieces))
	l.background = func() {
		defer l.running.Done()
		l.work()
	}
	return l
}

// Rates are those of the gradients [NumParams] of the weights [NumParams], by
// parameter, in the order of the flat vector; valid until the next call. It is
// not safe for concurrent use.
func (l *LARS) Rates(trust, decay float32, weights, grads []float32) []Rate {
	if n := l.rates[len(l.rates)-1].End; len(weights) != n || len(grads) != n {
		panic(fmt.Sprintf("optim: LARS: %d weights, %d gradients of %d parameters", len(weights), len(grads), n))
	}
	l.decay, l.weights, l.grads = decay, weights, grads
	l.next.Store(0)
	l.running.Add(l.threads - 1)
	for range l.threads - 1 {
		go l.background()
	}
	l.work()
	l.running.Wait()
	l.weights, l.grads = nil, nil
	for i, s := range l.tensors {
		if s.from == s.to {
			continue
		}
		l.rates[i].Decay, l.rates[i].Rate = decay, total(l.sums[s.from:s.to]).rate(trust)
	}
	return l.rates
}

func (l *LARS) work() {
	for {
		i := int(l.next.Add(1)) - 1
		if i >= len(l.pieces) {
			return
		}
		p := l.pieces[i]
		l.sums[i] = sum(l.weights[p.From:p.To], l.grads[p.From:p.To], l.decay)
	}
}

// sum is that of one piece. Squares of float32 are exact in float64.
func sum(w, g []float32, decay float32) squares {
	var lanes [Lanes]squares
	g = g[:len(w)]
	for len(w) > 0 {
		n := min(Lanes, len(w))
		row := g[:n]
		for i, x := range w[:n] {
			u := float64(row[i] + float32(decay*x))
			lanes[i].w += float64(x) * float64(x)
			lanes[i].u += u * u
		}
		w, g = w[n:], g[n:]
	}
	return fold(&lanes)
}

// total is that of a tensor's pieces.
func total(pieces []squares) squares {
	var lanes [Lanes]squares
	for i, p := range pieces {
		lanes[i%Lanes].add(p)
	}
	return fold(&lanes)
}

func (s *squares) add(o squares) {
	s.w += o.w
	s.u += o.u
}

// fold halves the lanes until one is left.
func fold(lanes *[Lanes]squares) squares {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			lanes[i].add(lanes[i+half])
		}
	}
	return lanes[0]
}

// rate is q.
func (s squares) rate(trust float32) float32 {
	if s.w > 0 && s.u > 0 {
		return float32(float64(trust) * math.Sqrt(s.w) / math.Sqrt(s.u))
	}
	return 1
}

// Cut calls f for the parts of [from, to) that are of one tensor each.
func Cut(rates []Rate, from, to int, f func(from, to int, r Rate)) {
	for i := sort.Search(len(rates), func(i int) bool { return rates[i].End > from }); from < to; i++ {
		end := min(rates[i].End, to)
		if end > from {
			f(from, end, rates[i])
		}
		from = max(from, end)
	}
}
