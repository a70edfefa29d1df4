// Package npy writes numpy's format for one array, version 1.0, of rows that come
// one after the other.
//
// Source: numpy/lib/format.py.
package npy

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
)

// headerLen is the length of what stands before the elements: enough for any
// number of rows, so that it can be written at the end.
const headerLen = 128

// Writer writes a [rows, dim] array of float32.
type Writer struct {
	w    io.WriteSeeker
	dim  int
	rows int
	buf  []byte
}

// NewWriter begins an array at the start of w.
func NewWriter(w io.WriteSeeker, dim int) (*Writer, error) {
	n := &Writer{w: w, dim: dim}
	return n, n.header()
}

// header writes the header for the rows written so far.
func (n *Writer) header() error {
	const fixed = 10 // magic, version, length
	text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", n.rows, n.dim)
	text += strings.Repeat(" ", headerLen-fixed-1-len(text)) + "\n"
	h := append([]byte("\x93NUMPY\x01\x00"), 0, 0)
	binary.LittleEndian.PutUint16(h[8:], uint16(len(text)))
	_, err := n.w.Write(append(h, text...))
	return err
}

// Add writes rows, one or more, each of dim values.
func (n *Writer) Add(values []float32) error {
	if len(values)%n.dim != 0 {
		return fmt.Errorf("%d values in rows of %d", len(values), n.dim)
	}
	n.buf = n.buf[:0]
	for _, v := range values {
		n.buf = binary.LittleEndian.AppendUint32(n.buf, math.Float32bits(v))
	}
	n.rows += len(values) / n.dim
	_, err := n.w.Write(n.buf)
	return err
}

// Close says in the header how many rows there are. It closes nothing.
func (n *Writer) Close() error {
	if _, err := n.w.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return n.header()
}
