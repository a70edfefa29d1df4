package replicatest

import (
	"context"
	"math/rand/v2"
	"time"

	"mochi/replica/data"
)

// Images are random images that lie in memory before they are asked for: every
// step is given the same views. They stand in for a data.Loader (input.Source).
type Images struct {
	size      int // values of one view
	seed      uint64
	unit      int
	requested []data.Request
	batch     data.Batch
}

// NewImages makes images of three channels, size×size pixels.
func NewImages(size int, seed uint64) *Images { return &Images{size: 3 * size * size, seed: seed} }

// Unit is how many samples are computed at once, as the requests had them; 0
// before the first.
func (s *Images) Unit() int { return s.unit }

// Submit asks for the images of a step.
func (s *Images) Submit(r data.Request) error {
	if len(r.Query) > 0 {
		s.unit = len(r.Query[0])
	}
	s.requested = append(s.requested, r)
	return nil
}

// Next gives the images of the oldest request.
func (s *Images) Next(context.Context) (*data.Batch, time.Duration, error) {
	b := s.Ready()
	if b == nil {
		return nil, 0, data.ErrNothingSubmitted
	}
	s.requested = s.requested[1:]
	return b, 0, nil
}

// Ready is what Next will give.
func (s *Images) Ready() *data.Batch {
	if len(s.requested) == 0 {
		return nil
	}
	r := s.requested[0]
	if len(s.batch.Query) != len(r.Query) {
		rng := rand.New(rand.NewPCG(s.seed, 1))
		s.batch.Query, s.batch.Key = s.views(rng, r.Query), s.views(rng, r.Key)
	}
	s.batch.Step = r.Step
	return &s.batch
}

// views draws a view for each sample.
func (s *Images) views(rng *rand.Rand, lists [][]data.Ref) [][]float32 {
	views := make([][]float32, len(lists))
	for i, refs := range lists {
		views[i] = make([]float32, len(refs)*s.size)
		for j := range views[i] {
			views[i][j] = float32(rng.NormFloat64())
		}
	}
	return views
}

// Reset forgets what was asked for.
func (s *Images) Reset() { s.requested = nil }

// Close does nothing.
func (s *Images) Close() {}
