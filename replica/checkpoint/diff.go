package checkpoint

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// Difference is what `mochi diff --json` prints.
type Difference struct {
	Tensors int     `json:"tensors"` // compared: in both files, of one shape
	MaxAbs  float64 `json:"max_abs"` // largest |a−b|
	MaxRel  float64 `json:"max_rel"` // largest max|a−b| / max|a| of a tensor
	Worst   string  `json:"worst"`   // the tensor with MaxRel; "" when all are equal

	// Mismatched lists tensors in one file only and differing shapes or types.
	Mismatched []string `json:"mismatched,omitempty"`
	// Metadata names the metadata that differ (step, config, …); they do not
	// count as a difference of the states.
	Metadata []string `json:"metadata,omitempty"`
}

// Diff compares two checkpoint files tensor by tensor. Both are verified. A
// tensor whose a is all zero is measured against max|b|; a value that is not
// finite in one file and different in the other counts as math.MaxFloat64.
func Diff(pathA, pathB string) (Difference, error) {
	a, err := loadTensors(pathA)
	if err != nil {
		return Difference{}, err
	}
	b, err := loadTensors(pathB)
	if err != nil {
		return Difference{}, err
	}
	var d Difference
	for _, e := range a.header.tensors {
		f, ok := b.find(e.name)
		switch {
		case !ok:
			d.Mismatched = append(d.Mismatched, fmt.Sprintf("%s: only in %s", e.name, pathA))
			continue
		case e.dtype != f.dtype || !slices.Equal(e.shape, f.shape):
			d.Mismatched = append(d.Mismatched, fmt.Sprintf("%s: %s %v and %s %v", e.name, e.dtype, e.shape, f.dtype, f.shape))
			continue
		}
		d.Tensors++
		abs, rel := distance(a.values[e.name], b.values[e.name])
		d.MaxAbs = max(d.MaxAbs, abs)
		if rel > d.MaxRel {
			d.MaxRel, d.Worst = rel, e.name
		}
	}
	for _, f := range b.header.tensors {
		if _, ok := a.find(f.name); !ok {
			d.Mismatched = append(d.Mismatched, fmt.Sprintf("%s: only in %s", f.name, pathB))
		}
	}
	for key, value := range a.header.metadata {
		if other, ok := b.header.metadata[key]; key != "digest" && key != formatKey && key != versionKey && (!ok || other != value) {
			d.Metadata = append(d.Metadata, key)
		}
	}
	slices.Sort(d.Metadata)
	return d, nil
}

// tensorFile is a file's tensors by name: a *[]float32, *[]int32 or *[]int64.
type tensorFile struct {
	header *header
	values map[string]any
}

func (t *tensorFile) find(name string) (entry, bool) {
	for _, e := range t.header.tensors {
		if e.name == name {
			return e, true
		}
	}
	return entry{}, false
}

func loadTensors(path string) (*tensorFile, error) {
	t := &tensorFile{values: map[string]any{}}
	err := loadFile(path, func(r io.Reader, size int64) error {
		h, err := readHeader(r, size, maxHeader)
		if err != nil {
			return err
		}
		if err := checkFormat(h.metadata); err != nil {
			return err
		}
		t.header = h
		sinks := make([]any, len(h.tensors))
		for i, e := range h.tensors {
			switch e.dtype {
			case "F32":
				sinks[i] = new([]float32)
			case "I32":
				sinks[i] = new([]int32)
			case "I64":
				sinks[i] = new([]int64)
			}
			t.values[e.name] = sinks[i]
		}
		return h.readData(r, sinks, true)
	})
	return t, err
}

// distance is max|a−b| and its ratio to max|a|, of two equally long vectors.
func distance(a, b any) (abs, rel float64) {
	switch a := a.(type) {
	case *[]float32:
		return distanceOf(*a, *b.(*[]float32))
	case *[]int32:
		return distanceOf(*a, *b.(*[]int32))
	default:
		return distanceOf(*a.(*[]int64), *b.(*[]int64))
	}
}

func distanceOf[T float32 | int32 | int64](a, b []T) (abs, rel float64) {
	var maxA, maxB float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		if (math.IsInf(x, 0) && x == y) || (math.IsNaN(x) && math.IsNaN(y)) {
			continue
		}
		diff := math.Abs(x - y)
		if math.IsNaN(diff) || math.IsInf(diff, 0) {
			return math.MaxFloat64, math.MaxFloat64
		}
		abs = max(abs, diff)
		maxA, maxB = max(maxA, math.Abs(x)), max(maxB, math.Abs(y))
	}
	switch {
	case abs == 0:
		return 0, 0
	case maxA > 0:
		return abs, abs / maxA
	default:
		return abs, abs / maxB
	}
}
