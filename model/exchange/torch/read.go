package torch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

// Tensor is a tensor of a file, in the place where the file's value has it.
type Tensor struct {
	array array.Array
	place *array.Storage // in files of the old form known after the value only
}

// Array is the tensor as an array, ready to be read.
func (t *Tensor) Array() *array.Array {
	a := t.array
	a.Storage = *t.place
	return &a
}

// storage stands for a storage while a pickle is read.
type storage struct {
	key     string
	numel   int64 // of typ
	typ     array.Type
	from    int64 // a view's first element, in the oldest files
	located *array.Storage
}

// Is says whether a file begins as one of torch.save does.
func Is(start []byte) bool { return isZip(start) || isLegacy(start) || isTar(start) }

func isZip(start []byte) bool { return bytes.HasPrefix(start, []byte("PK")) }

// isLegacy says whether it is a pickle of the magic number.
func isLegacy(start []byte) bool {
	return len(start) > 2 && start[0] == 0x80 && start[1] <= 5 && bytes.Contains(start, []byte("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
}

// isTar says whether it is a file of before 2017.
func isTar(start []byte) bool { return len(start) > 262 && string(start[257:262]) == "ustar" }

// Open reads the value of a file of size bytes: what was given to torch.save, with
// a *Tensor for each tensor. Their elements stay in r.
func Open(r io.ReaderAt, size int64) (any, error) {
	start := make([]byte, min(size, 512))
	if _, err := r.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case isZip(start):
		return openZip(r, size)
	case isLegacy(start):
		return openLegacy(r, size)
	case isTar(start):
		return nil, errors.New("it was written by a PyTorch before 0.1.10, as a tar: save it again with a newer one")
	}
	return nil, errors.New("it is no file of torch.save")
}

// tensors is a Hook that makes tensors; locate finds storages.
type tensors struct {
	locate func(s *storage) error // sets located; what it points to may be filled in later
	types  map[string]array.Type
}

func (t *tensors) hook(v any) (any, error) {
	switch v := v.(type) {
	case pickle.Persistent:
		return t.persistent(v.ID)
	case *pickle.Object:
		made, err := t.made(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Class, err)
		}
		return made, nil
	}
	return v, nil
}

// persistent is ("storage", class, key, place, elements), with a view of it in
// files of the old form; others ("module", …: the source of a class) mean
// nothing here.
func (t *tensors) persistent(id any) (any, error) {
	list, ok := id.(pickle.Tuple)
	if !ok || len(list) == 0 || list[0] != "storage" {
		return pickle.Persistent{ID: id}, nil
	}
	if len(list) < 5 {
		return nil, errors.New("a storage of which too little is said")
	}
	class, isClass := list[1].(pickle.Global)
	key, isKey := list[2].(string)
	numel, isCount := list[4].(int64)
	typ := t.types[class.Name]
	if class.Name == "UntypedStorage" {
		typ = array.U8
	}
	if !isClass || !isKey || !isCount || numel < 0 || numel > math.MaxInt64/16 {
		return nil, fmt.Errorf("a storage %v of %v elements", list[2], list[4])
	}
	s := &storage{key: key, numel: numel, typ: typ}
	if len(list) > 5 {
		if view, isView := list[5].(pickle.Tuple); isView && len(view) == 3 {
			from, isFrom := view[1].(int64)
			if !isFrom || from < 0 || from > numel {
				return nil, fmt.Errorf("a view of storage %q from element %v", key, view[1])
			}
			s.from = from
		}
	}
	return s, t.locate(s)
}

// made is what PyTorch's functions make of their arguments; other calls stay what
// they are.
func (t *tensors) made(o *pickle.Object) (any, error) {
	a := o.Args
	switch o.Class.String() {
	case "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor":
		return tensorOf(a, "")
	case "torch._utils._rebuild_tensor_v3":
		if len(a) < 7 {
			return nil, errors.New("too few arguments")
		}
		dtype, _ := a[6].(pickle.Global)
		return tensorOf(a, dtypes()[dtype.Name])
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2":
		for _, v := range a {
			if inner, isTensor := v.(*Tensor); isTensor {
				return inner, nil
			}
		}
	case "torch.Size":
		if len(a) == 1 {
			return a[0], nil
		}
	}
	return o, nil
}

// dtypes are torch's names of types.
func dtypes() map[string]array.Type {
	return map[string]array.Type{
		"float64": array.F64, "float32": array.F32, "float16": array.F16, "bfloat16": array.BF16,
		"int64": array.I64, "int32": array.I32, "int16": array.I16, "int8": array.I8, "uint8": array.U8, "bool": array.Bool,
	}
}

// tensorOf is the tensor of (storage, offset, size, stride, …).
func tensorOf(a pickle.Tuple, typ array.Type) (any, error) {
	if len(a) < 4 {
		return nil, errors.New("too few arguments")
	}
	s, isStorage := a[0].(*storage)
	offset, isOffset := a[1].(int64)
	shape, okShape := intsOf(a[2])
	stride, okStride := intsOf(a[3])
	if !isStorage || !isOffset || !okShape || !okStride {
		return nil, errors.New("arguments that make no tensor")
	}
	if offset < 0 || offset > math.MaxInt64/2 {
		return nil, fmt.Errorf("offset %d", offset)
	}
	t := &Tensor{array: array.Array{Type: s.typ, Shape: shape, Stride: stride, Offset: s.from + offset}, place: s.located}
	if typ != "" {
		t.array.Type = typ
	}
	return t, nil
}

func intsOf(v any) ([]int, bool) {
	list, isTuple := v.(pickle.Tuple)
	if !isTuple {
		return nil, false
	}
	out := make([]int, len(list))
	for i, v := range list {
		n, isInt := v.(int64)
		if !isInt || n < 0 || n > math.MaxInt32 {
			return nil, false
		}
		out[i] = int(n)
	}
	return out, true
}

// cutShort says what is wrong with a file whose end is missing.
func cutShort(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is cut short in %s", strings.TrimSpace(what))
	}
	return err
}
