package data

import (
	"errors"
	"fmt"
	"io"

	"mochi/model/exchange/pickle"
)

// The Python version of CIFAR: a pickled dict of data, [n, 3072] bytes of planes, and
// labels (CIFAR-100: fine_labels and coarse_labels), lists of n integers. It is read
// as data alone, and becomes the records of the binary version.

// maxPickled is the largest such file, bytes: CIFAR-100's has 155 million.
const maxPickled = 256 << 20

// pickled are the formats' names in the Python version.
func (f cifarFormat) pickled() cifarFormat {
	p := f
	p.python = true
	switch f.labels {
	case 1:
		p.train, p.test = []string{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"}, "test_batch"
	default:
		p.train, p.test = []string{"train"}, "test"
	}
	return p
}

// unpickle is the records of a file of the Python version.
func (f cifarFormat) unpickle(r io.Reader) ([]byte, error) {
	in := pickle.NewReader(r)
	in.Limits = pickle.Limits{Bytes: maxPickled, Objects: 1 << 20}
	v, err := in.Next()
	if err != nil {
		return nil, err
	}
	d, is := v.(*pickle.Dict)
	if !is {
		return nil, fmt.Errorf("a pickle of a %T is no batch of %s", v, f.name)
	}
	pixels, err := pixelsOf(entry(d, "data"))
	if err != nil {
		return nil, fmt.Errorf("its data: %w", err)
	}
	const size = 3 * cifarPlane
	if len(pixels) == 0 || len(pixels)%size != 0 {
		return nil, fmt.Errorf("its data have %d bytes, which are not a whole number of images of %d: the file is cut short or of another kind", len(pixels), size)
	}
	n := len(pixels) / size
	names := []string{"labels"}
	if f.labels == 2 {
		names = []string{"coarse_labels", "fine_labels"}
	}
	records := make([]byte, 0, n*f.record())
	var labels [][]byte
	for i, name := range names {
		list, err := pickledLabels(entry(d, name), n)
		if err != nil && i == len(names)-1 { // the last one counts
			return nil, fmt.Errorf("its %s: %w", name, err)
		}
		if err != nil {
			list = make([]byte, n)
		}
		labels = append(labels, list)
	}
	for i := range n {
		for _, list := range labels {
			records = append(records, list[i])
		}
		records = append(records, pixels[i*size:(i+1)*size]...)
	}
	return records, nil
}

// entry is the value of a key, which Python 2 wrote as bytes.
func entry(d *pickle.Dict, key string) any {
	for _, item := range d.Items {
		switch k := item.Key.(type) {
		case string:
			if k == key {
				return item.Value
			}
		case []byte:
			if string(k) == key {
				return item.Value
			}
		}
	}
	return nil
}

// pixelsOf are the bytes of an array: as they are, or of NumPy's, whose state is a
// version, a shape, a type, whether it goes by columns, and the bytes.
func pixelsOf(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	case *pickle.Object:
		state, _ := v.State.(pickle.Tuple)
		if len(state) != 5 {
			return nil, fmt.Errorf("a %s is no array of bytes", v.Class)
		}
		kind, _ := state[2].(*pickle.Object)
		if kind == nil || len(kind.Args) == 0 || kind.Args[0] != any("u1") {
			return nil, errors.New("an array of other numbers than bytes")
		}
		if state[3] != any(false) {
			return nil, errors.New("an array that goes by columns")
		}
		if raw, is := state[4].(*pickle.Object); is { // bytes of Python 3 in protocol 2
			return nil, fmt.Errorf("an array of a %s", raw.Class)
		}
		return pixelsOf(state[4])
	}
	return nil, fmt.Errorf("want an array of bytes, have a %T", v)
}

// pickledLabels are n labels.
func pickledLabels(v any, n int) ([]byte, error) {
	list, is := v.(*pickle.List)
	if !is || len(list.Items) != n {
		return nil, fmt.Errorf("want a list of %d integers", n)
	}
	labels := make([]byte, n)
	for i, item := range list.Items {
		l, is := item.(int64)
		if !is || l < 0 || l > 255 {
			return nil, fmt.Errorf("number %d is %v", i, item)
		}
		labels[i] = byte(l)
	}
	return labels, nil
}
