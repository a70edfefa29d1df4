package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What parquet says of itself is written in Thrift's compact protocol. It is walked over
// before anything is made of it, since a few bytes may claim a list of a billion things,
// for which a reader would make room at once.

// The types of the compact protocol.
const (
	thriftStop   = 0
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
)

// How deep structures may lie in each other, and how many there may be in lists, each of
// which takes a reader some hundred bytes.
const (
	deepestThrift = 16
	maxStructures = 1 << 18
)

var errThrift = errors.New("what it says of itself is damaged")

// walk goes over a structure. It is told the integers and truths in it, of the field id
// of the structure itself, or of the field inner of the structure in field id.
type walk struct {
	b    []byte
	at   int
	told func(id, inner int16, v int64)

	structures int // in lists
}

// fits says whether n bytes are left, or n things of a byte or more.
func (w *walk) fits(n uint64) bool { return n <= uint64(len(w.b)-w.at) }

func (w *walk) uvarint() (uint64, error) {
	v, n := binary.Uvarint(w.b[w.at:])
	if n <= 0 {
		return 0, errThrift
	}
	w.at += n
	return v, nil
}

// zigzag is a signed integer.
func (w *walk) zigzag() (int64, error) {
	v, err := w.uvarint()
	return int64(v>>1) ^ -int64(v&1), err
}

func (w *walk) byte() (byte, error) {
	if w.at >= len(w.b) {
		return 0, errThrift
	}
	w.at++
	return w.b[w.at-1], nil
}

// structure goes over one, which is field of another; depth 0 is the outermost.
func (w *walk) structure(field int16, depth int) error {
	if depth > deepestThrift {
		return fmt.Errorf("%w: structures lie more than %d deep", errThrift, deepestThrift)
	}
	id := int64(0)
	for {
		head, err := w.byte()
		if err != nil {
			return err
		}
		kind := head & 15
		if kind == thriftStop {
			return nil
		}
		if delta := head >> 4; delta != 0 {
			id += int64(delta)
		} else if id, err = w.zigzag(); err != nil {
			return err
		}
		if id < 0 || id > 1<<15-1 {
			return errThrift
		}
		if err := w.value(kind, int16(id), field, depth); err != nil {
			return err
		}
	}
}

// value goes over the value of a field.
func (w *walk) value(kind byte, id, outer int16, depth int) error {
	tell := func(v int64) {
		switch {
		case w.told == nil || depth > 1:
		case depth == 0:
			w.told(id, 0, v)
		default:
			w.told(outer, id, v)
		}
	}
	switch kind {
	case thriftTrue, thriftFalse:
		tell(int64(2 - kind))
	case thriftI16, thriftI32, thriftI64:
		v, err := w.zigzag()
		if err != nil {
			return err
		}
		tell(v)
	case thriftStruct:
		return w.structure(id, depth+1)
	default:
		return w.skip(kind, depth)
	}
	return nil
}

// skip goes over a value that is no field's, or not told.
func (w *walk) skip(kind byte, depth int) error {
	length := func(n uint64) error {
		if !w.fits(n) {
			return errThrift
		}
		w.at += int(n)
		return nil
	}
	switch kind {
	case thriftTrue, thriftFalse, thriftByte: // in lists, a byte each
		return length(1)
	case thriftI16, thriftI32, thriftI64:
		_, err := w.uvarint()
		return err
	case thriftDouble:
		return length(8)
	case thriftBinary:
		n, err := w.uvarint()
		if err != nil {
			return err
		}
		return length(n)
	case thriftStruct:
		return w.structure(0, depth+2) // whose integers are not told
	case thriftList, thriftSet:
		return w.list(depth)
	case thriftMap: // parquet has none
	}
	return errThrift
}

func (w *walk) list(depth int) error {
	head, err := w.byte()
	if err != nil {
		return err
	}
	n, kind := uint64(head>>4), head&15
	if n == 15 {
		if n, err = w.uvarint(); err != nil {
			return err
		}
	}
	if depth > deepestThrift || !w.fits(n) {
		return errThrift
	}
	if kind == thriftStruct {
		if w.structures += int(n); w.structures > maxStructures {
			return fmt.Errorf("%w: it lists more than %d things, the limit", errThrift, maxStructures)
		}
	}
	for range n {
		if err := w.skip(kind, depth+1); err != nil {
			return err
		}
	}
	return nil
}
