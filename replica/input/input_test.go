package input_test

import (
	"slices"
	"testing"
	"unsafe"

	"mochi/replica/data"
	"mochi/replica/data/sampler"
	"mochi/replica/input"
	"mochi/replica/replicatest"
)

// source is Images that keeps the requests.
type source struct {
	*replicatest.Images
	asked []data.Request
}

func (s *source) Submit(r data.Request) error {
	s.asked = append(s.asked, r)
	return s.Images.Submit(r)
}

// stager keeps which images are on their way.
type stager struct{ keys, queries *float32 }

func (s *stager) StageKeys(images []float32) error {
	s.keys = unsafe.SliceData(images)
	return nil
}

func (s *stager) StageQueries(images []float32) error {
	s.queries = unsafe.SliceData(images)
	return nil
}

func (s *stager) UnstageKeys() error {
	s.keys = nil
	return nil
}

func (s *stager) UnstageQueries() error {
	s.queries = nil
	return nil
}

func newInput(oracle bool) (*input.Input, *source, *stager) {
	src, way := &source{Images: replicatest.NewImages(2, 1)}, &stager{}
	cfg := input.Config{Seed: 3, Batch: 6, Unit: 2, Labels: oracle}
	return input.New(cfg, replicatest.Pictures{N: 10, Size: 2}, src, way), src, way
}

// A step has the samples of its cursor; this member's images are asked for in
// time, queries in the batch's order and keys in the permuted one's.
func TestSamplesOfAStep(t *testing.T) {
	for _, oracle := range []bool{false, true} {
		in, src, _ := newInput(oracle)
		if err := in.Start(4, 24, []int{4, 0}, nil); err != nil {
			t.Fatal(err)
		}
		want := sampler.New(10, 3)
		for i := range int64(3) {
			step, cursor := 4+i, 24+6*i
			s, err := in.Next(t.Context(), step, cursor)
			if err != nil {
				t.Fatal(err)
			}
			refs, shuffle := want.Batch(cursor, 6), want.Shuffle(cursor, 6)
			for j, ref := range refs {
				if s.Samples[j] != ref.Sample || s.Classes[j] != int32(ref.Sample%3) {
					t.Errorf("step %d: sample %d is %d of class %d, want %v", step, j, s.Samples[j], s.Classes[j], ref)
				}
			}
			if (s.Labels != nil) != oracle || !slices.Equal(s.Shuffle, shuffle) {
				t.Errorf("step %d: labels %v, shuffle %v", step, s.Labels, s.Shuffle)
			}
			r := src.asked[i]
			if len(src.asked) != int(i)+1+input.Prefetch || r.Step != step+1 {
				t.Errorf("step %d: %d requests, its own of step %d", step, len(src.asked), r.Step)
			}
			for unit, first := range []int{4, 0} {
				for j := range 2 {
					if r.Query[unit][j] != refs[first+j] || r.Key[unit][j] != refs[shuffle[first+j]] {
						t.Errorf("step %d: unit %d asks for %v and %v", step, unit, r.Query[unit], r.Key[unit])
					}
				}
			}
			in.Release()
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What is on its way to a device belongs to the step in hand or the next one.
func TestStaging(t *testing.T) {
	in, _, way := newInput(false)
	if err := in.Start(0, 0, []int{0, 2}, nil); err != nil {
		t.Fatal(err)
	}
	s, err := in.Next(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	staged := func(when string, keys, queries []float32) {
		t.Helper()
		if way.keys != unsafe.SliceData(keys) || way.queries != unsafe.SliceData(queries) {
			t.Errorf("%s: other images are on their way", when)
		}
	}
	staged("at the start", nil, s.Query[0])
	if err := in.StageQueries(1); err != nil {
		t.Fatal(err)
	}
	staged("in the first unit", nil, s.Query[1])
	if err := in.StageQueries(2); err != nil { // there is none
		t.Fatal(err)
	}
	if err := in.StageAhead(); err != nil {
		t.Fatal(err)
	}
	in.Release()
	staged("between steps", s.Key[0], nil)
	if s, err = in.Next(t.Context(), 1, 6); err != nil {
		t.Fatal(err)
	}
	staged("in the next step", s.Key[0], s.Query[0])
	in.Release()
	if err := in.StageAhead(); err != nil {
		t.Fatal(err)
	}
	if err := in.Start(1, 6, nil, nil); err != nil {
		t.Fatal(err)
	}
	staged("in a new round", nil, nil)
}
