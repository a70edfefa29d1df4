package parquet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// The pages of a column are read here, not by the library: it makes room for what a page
// says that it holds, of which a few bytes may say gigabytes.

// What a page may be: unpacked, it may have pageAnyway bytes, or maxRatio times as many as
// are stored; its header has at most maxHeader.
const (
	pageAnyway = 64 << 20
	maxRatio   = 100
	maxHeader  = 1 << 24
)

// plainDictionary is what version 1 called a dictionary; pyarrow writes it so.
const plainDictionary format.Encoding = 2

var errPage = errors.New("a page of it is damaged")

// leaf is a column of plain values, at most one a row.
type leaf struct {
	index  int         // among the leaves of the file
	kind   format.Type // of its values
	levels int         // how many of the groups that it is in, and it, may be missing
}

// column reads the values of a leaf in one row group, one a row.
type column struct {
	r       io.ReaderAt
	at, end int64
	leaf    leaf
	codec   format.CompressionCodec
	rows    int64 // of the row group

	dict [][]byte
	page [][]byte // nil: no value
}

// open begins a leaf's column chunk in a file of size bytes.
func open(r io.ReaderAt, size int64, l leaf, m format.ColumnMetaData, rows int64) (*column, error) {
	at := m.DataPageOffset
	if d := m.DictionaryPageOffset; d > 0 && d < at {
		at = d
	}
	if at < 4 || m.TotalCompressedSize < 0 || at > size || m.TotalCompressedSize > size-at || m.Type != l.kind {
		return nil, fmt.Errorf("%w: a column lies outside of it: is it cut short?", errPage)
	}
	return &column{r: r, at: at, end: at + m.TotalCompressedSize, leaf: l, codec: m.Codec, rows: rows}, nil
}

// next is the value of the next row, nil for none; it holds until the page after its own
// is read.
func (c *column) next() ([]byte, error) {
	for len(c.page) == 0 {
		if c.at >= c.end {
			return nil, fmt.Errorf("%w: a column has fewer values than rows", errPage)
		}
		if err := c.read(); err != nil {
			return nil, err
		}
	}
	v := c.page[0]
	c.page = c.page[1:]
	return v, nil
}

// header is what counts of a page's header.
type header struct {
	kind                   int64
	unpacked, stored       int64
	values, encoding       int64
	repetition, definition int64 // bytes of levels, of version 2
	packed                 bool
}

// head reads the header at c.at and passes over it.
func (c *column) head() (h header, err error) {
	for most := int64(1 << 12); ; most *= 16 { // the smallest and the largest image may stand in it
		n := min(c.end-c.at, most)
		h, err = c.headIn(n)
		if !errors.Is(err, errThrift) || n < most || most >= maxHeader {
			return h, err
		}
	}
}

// headIn is head of a header of at most n bytes.
func (c *column) headIn(n int64) (h header, err error) {
	b := make([]byte, n)
	if _, err := c.r.ReadAt(b, c.at); err != nil {
		return h, err
	}
	h.packed, h.unpacked, h.stored, h.values = true, -1, -1, -1
	w := walk{b: b, told: func(id, inner int16, v int64) {
		switch [2]int16{id, inner} {
		case [2]int16{1, 0}:
			h.kind = v
		case [2]int16{2, 0}:
			h.unpacked = v
		case [2]int16{3, 0}:
			h.stored = v
		case [2]int16{5, 1}, [2]int16{7, 1}, [2]int16{8, 1}:
			h.values = v
		case [2]int16{5, 2}, [2]int16{7, 2}, [2]int16{8, 4}:
			h.encoding = v
		case [2]int16{8, 5}:
			h.definition = v
		case [2]int16{8, 6}:
			h.repetition = v
		case [2]int16{8, 7}:
			h.packed = v == 1
		}
	}}
	if err := w.structure(0, 0); err != nil {
		return h, err
	}
	c.at += int64(w.at)
	switch {
	case h.stored < 0 || h.stored > c.end-c.at, h.unpacked < 0, h.values < 0:
		return h, errPage
	case h.unpacked > max(pageAnyway, h.stored*maxRatio):
		return h, fmt.Errorf("%w: its %d bytes say that they unpack to %d: the limit is %d times as much", errPage, h.stored, h.unpacked, maxRatio)
	case format.PageType(h.kind) != format.DictionaryPage && h.values > c.rows:
		return h, fmt.Errorf("%w: it has more values than there are rows", errPage)
	}
	return h, nil
}

// read reads a page.
func (c *column) read() error {
	h, err := c.head()
	if err != nil {
		return err
	}
	stored := make([]byte, h.stored)
	if _, err := c.r.ReadAt(stored, c.at); err != nil {
		return err
	}
	c.at += h.stored
	switch format.PageType(h.kind) {
	case format.DictionaryPage:
		content, err := unpack(c.codec, stored, h.unpacked)
		if err != nil {
			return err
		}
		c.dict, err = plain(c.leaf.kind, content, h.values)
		return err
	case format.DataPage:
		content, err := unpack(c.codec, stored, h.unpacked)
		if err != nil {
			return err
		}
		levels := []byte(nil)
		if c.leaf.levels > 0 {
			if len(content) < 4 || uint64(binary.LittleEndian.Uint32(content)) > uint64(len(content)-4) {
				return errPage
			}
			n := 4 + int(binary.LittleEndian.Uint32(content))
			levels, content = content[4:n], content[n:]
		}
		return c.fill(h, levels, content)
	case format.DataPageV2:
		if h.repetition < 0 || h.definition < 0 || h.repetition > h.stored || h.definition > h.stored-h.repetition || h.unpacked < h.repetition+h.definition {
			return errPage
		}
		n := h.repetition + h.definition
		levels, content := stored[h.repetition:n], stored[n:]
		if h.packed {
			if content, err = unpack(c.codec, content, h.unpacked-n); err != nil {
				return err
			}
		}
		return c.fill(h, levels, content)
	case format.IndexPage:
		return nil
	}
	return errPage
}

// fill makes the values of a page.
func (c *column) fill(h header, levels, content []byte) (err error) {
	there, n := []uint32(nil), h.values
	if c.leaf.levels > 0 {
		if there, err = hybrid(levels, bits.Len(uint(c.leaf.levels)), h.values); err != nil {
			return err
		}
		n = 0
		for _, level := range there {
			if int(level) == c.leaf.levels {
				n++
			}
		}
	}
	var values [][]byte
	switch format.Encoding(h.encoding) {
	case format.Plain:
		values, err = plain(c.leaf.kind, content, n)
	case plainDictionary, format.RLEDictionary:
		values, err = c.fromDictionary(content, n)
	default:
		return fmt.Errorf("its values are encoded as %v, which is not read: write it again with the usual encodings", format.Encoding(h.encoding))
	}
	if err != nil || there == nil {
		c.page = values
		return err
	}
	c.page = make([][]byte, len(there))
	for i, level := range there {
		if int(level) == c.leaf.levels {
			c.page[i], values = values[0], values[1:]
		}
	}
	return nil
}

func (c *column) fromDictionary(content []byte, n int64) ([][]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if len(content) == 0 || content[0] > 32 {
		return nil, errPage
	}
	at, err := hybrid(content[1:], int(content[0]), n)
	if err != nil {
		return nil, err
	}
	values := make([][]byte, n)
	for i, entry := range at {
		if int64(entry) >= int64(len(c.dict)) {
			return nil, errPage
		}
		values[i] = c.dict[entry]
	}
	return values, nil
}

// plain are n values as they are.
func plain(kind format.Type, b []byte, n int64) ([][]byte, error) {
	size := 4 // at least: the length of a text
	if kind == format.Int64 {
		size = 8
	}
	if n > int64(len(b)/size) {
		return nil, errPage
	}
	values := make([][]byte, n)
	for i := range values {
		m := size
		if kind == format.ByteArray {
			if len(b) < 4 {
				return nil, errPage
			}
			length := binary.LittleEndian.Uint32(b)
			if b = b[4:]; uint64(length) > uint64(len(b)) {
				return nil, errPage
			}
			m = int(length)
		}
		values[i], b = b[:m:m], b[m:]
	}
	return values, nil
}

// hybrid are n numbers of so many bits: runs of one number, and numbers packed densely.
func hybrid(b []byte, width int, n int64) ([]uint32, error) {
	values := make([]uint32, 0, n)
	for int64(len(values)) < n {
		head, m := binary.Uvarint(b)
		if m <= 0 {
			return nil, errPage
		}
		b = b[m:]
		left := uint64(n) - uint64(len(values))
		if head&1 == 0 { // a run
			size := (width + 7) / 8
			if len(b) < size || head>>1 == 0 {
				return nil, errPage
			}
			var word [4]byte
			copy(word[:], b[:size])
			v := binary.LittleEndian.Uint32(word[:])
			for range min(head>>1, left) {
				values = append(values, v)
			}
			b = b[size:]
			continue
		}
		groups := head >> 1 // of eight
		if groups == 0 || width > 0 && groups > uint64(len(b)/width) {
			return nil, errPage
		}
		for i := range min(groups*8, left) {
			values = append(values, packedAt(b, i*uint64(width), width))
		}
		b = b[groups*uint64(width):]
	}
	return values, nil
}

// packedAt is the number of so many bits at a bit of b.
func packedAt(b []byte, at uint64, width int) (v uint32) {
	for i := range uint64(width) {
		v |= uint32(b[(at+i)/8]>>((at+i)%8)&1) << i
	}
	return v
}

// unpack is what a page holds, length bytes.
func unpack(codec format.CompressionCodec, b []byte, length int64) ([]byte, error) {
	var in io.Reader
	switch codec {
	case format.Uncompressed:
		in = bytes.NewReader(b)
	case format.Snappy:
		if n, err := snappy.DecodedLen(b); err != nil || int64(n) != length {
			return nil, errPage
		}
		content, err := snappy.Decode(nil, b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPage, err)
		}
		return content, nil
	case format.Gzip:
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPage, err)
		}
		in = z
	case format.Zstd:
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(pageAnyway))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPage, err)
		}
		defer z.Close()
		in = z
	default:
		return nil, fmt.Errorf("its pages are packed by %v, which is not read: write it again with snappy, gzip or zstd", codec)
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(in, content); err != nil {
		return nil, fmt.Errorf("%w: %w", errPage, err)
	}
	return content, nil
}
