// Package parquet unpacks Parquet files of images, as Hugging Face's datasets are
// (https://huggingface.co/docs/datasets): a column of structs {bytes, path}, or of bytes,
// and a column of labels, whose classes are named in the file's metadata.
//
// The pages of such a file are packed, and hundreds of images share one, so that a single
// image cannot be read from it: all are written to a tar file once (package unpacked), of
// which any can be. Each row is a member NNNNNNNNN.json, the class and where the image
// came from, and, where it has an image, a member NNNNNNNNN.EXT.
//
// The file's description is read by github.com/parquet-go/parquet-go, after it was walked
// over (thrift.go); the pages of the two or three columns that count are read here
// (pages.go), since the library trusts what pages say of their own lengths. One page of
// each column is in memory at a time, packed and unpacked.
package parquet

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"mochi/replica/data/naming"
	"mochi/replica/data/shards"
	"mochi/replica/data/unpacked"
)

// Suffix is how the names of such files end.
const Suffix = ".parquet"

// What a file may be.
const (
	maxFooter = 64 << 20 // bytes of its description; some have the smallest and largest image of each row group in it
	maxRows   = 4_000_000
	maxText   = 1000 // bytes of a path or a label
)

const magic = "PAR1"

// Is says whether a file that begins so is one.
func Is(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// HasImages says whether the file at a path has a column of images, as far as its
// description can be read.
func HasImages(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	_, err = describe(f, info.Size())
	return err == nil
}

// Images unpacks the images of a file to a tar file.
func Images() unpacked.Maker {
	return unpacked.Maker{Kind: "parquet", Make: func(out io.Writer, source *os.File) error {
		info, err := source.Stat()
		if err != nil {
			return err
		}
		return unpackImages(out, source, info.Size())
	}}
}

// file is what is known of one.
type file struct {
	r     io.ReaderAt
	size  int64
	meta  *format.FileMetaData
	image leaf
	path  *leaf // of the image; nil: there is none
	label *leaf
	names []string // of the classes
}

// describe reads a file's description, and finds the columns that count.
func describe(r io.ReaderAt, size int64) (f *file, err error) {
	if err := checkFooter(r, size); err != nil {
		return nil, err
	}
	defer func() { // a description that is no tree
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("%w: %v", errThrift, p)
		}
	}()
	p, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	f = &file{r: r, size: size, meta: p.Metadata()}
	var rows int64
	for _, g := range f.meta.RowGroups {
		if rows += g.NumRows; g.NumRows < 0 || rows > maxRows {
			return nil, fmt.Errorf("it has more than %d rows, the limit: cut it into several", maxRows)
		}
	}
	return f, f.find(p)
}

// checkFooter walks over the description.
func checkFooter(r io.ReaderAt, size int64) error {
	const tail = 8 // its length, and the magic
	if size < int64(len(magic))+tail {
		return errors.New("it is cut short")
	}
	end := make([]byte, tail)
	if _, err := r.ReadAt(end, size-tail); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(end))
	switch {
	case string(end[4:]) != magic:
		return errors.New("it is no parquet file, or is cut short")
	case n > size-tail-int64(len(magic)):
		return errThrift
	case n > maxFooter:
		return fmt.Errorf("its description has %d bytes: the limit is %d", n, maxFooter)
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, size-tail-n); err != nil {
		return err
	}
	return (&walk{b: b}).structure(0, 0)
}

// feature is what the metadata of Hugging Face say of a column.
type feature struct {
	Type  string   `json:"_type"`
	Names []string `json:"names"`
}

// features are those of all columns, nil where the file does not say.
func features(meta *format.FileMetaData) map[string]feature {
	for _, kv := range meta.KeyValueMetadata {
		var said struct {
			Info struct {
				Features map[string]json.RawMessage `json:"features"`
			} `json:"info"`
		}
		if kv.Key != "huggingface" || json.Unmarshal([]byte(kv.Value), &said) != nil {
			continue
		}
		all := make(map[string]feature)
		for name, text := range said.Info.Features {
			var f feature
			if json.Unmarshal(text, &f) == nil { // lists are no column that counts
				all[name] = f
			}
		}
		return all
	}
	return nil
}

// The names of columns, the first that is there.
var (
	imageColumns = []string{"image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "image_data"}
	labelColumns = append(shards.ClassFields(), "labels", "fine_label", "fine_labels")
)

// find finds the columns of images and labels.
func (f *file) find(p *parquet.File) error {
	said := features(f.meta)
	columns := p.Root().Columns()
	images := make(map[string]*parquet.Column)
	first := ""
	for _, c := range columns {
		bytes := c
		if !c.Leaf() {
			bytes = c.Column("bytes")
		}
		if _, ok := f.leaf(bytes, format.ByteArray); !ok {
			continue
		}
		if images[c.Name()] = bytes; first == "" && (said[c.Name()].Type == "Image" || !c.Leaf() && c.Column("path") != nil) {
			first = c.Name()
		}
	}
	chosen := first
	for _, name := range slices.Backward(imageColumns) {
		if images[name] != nil && (first == "" || said[name].Type == "Image" || said == nil) {
			chosen = name
		}
	}
	if chosen == "" {
		return errors.New("it has no column of images: want one named image, of bytes or of structs {bytes, path}")
	}
	f.image, _ = f.leaf(images[chosen], format.ByteArray)
	if c := p.Root().Column(chosen); !c.Leaf() {
		if l, ok := f.leaf(c.Column("path"), format.ByteArray); ok {
			f.path = &l
		}
	}
	f.findLabel(columns, said)
	return nil
}

// findLabel finds the column of labels: by its name, or the first that the metadata call
// one of classes.
func (f *file) findLabel(columns []*parquet.Column, said map[string]feature) {
	take := func(c *parquet.Column) bool {
		l, ok := f.leaf(c, format.Int32, format.Int64, format.ByteArray)
		if ok {
			f.label, f.names = &l, said[c.Name()].Names
		}
		return ok
	}
	for _, name := range labelColumns {
		for _, c := range columns {
			if c.Name() == name && take(c) {
				return
			}
		}
	}
	for _, c := range columns {
		if said[c.Name()].Type == "ClassLabel" && take(c) {
			return
		}
	}
}

// leaf is a column of plain values of one of these kinds, at most one a row; ok is false
// where it is none.
func (f *file) leaf(c *parquet.Column, kinds ...format.Type) (l leaf, ok bool) {
	if c == nil || !c.Leaf() || c.MaxRepetitionLevel() > 0 {
		return l, false
	}
	kind := format.Type(c.Type().Kind())
	return leaf{index: c.Index(), kind: kind, levels: c.MaxDefinitionLevel()}, slices.Contains(kinds, kind)
}

// unpackImages writes a tar file. What is wrong with the source is a DamagedError.
func unpackImages(out io.Writer, r io.ReaderAt, size int64) error {
	f, err := describe(r, size)
	if err != nil {
		return unpacked.Damaged("%w", err)
	}
	t := tar.NewWriter(out)
	w := writer{file: f, tar: t, left: max(pageAnyway, size*maxRatio)}
	for _, g := range f.meta.RowGroups {
		if err := w.group(g); err != nil {
			return err
		}
	}
	if w.row == 0 {
		return unpacked.Damaged("it has no row")
	}
	return t.Close()
}

// writer writes rows to a tar file.
type writer struct {
	*file
	tar  *tar.Writer
	row  int
	left int64 // bytes that may be written
}

// group writes the rows of a row group.
func (w *writer) group(g format.RowGroup) error {
	image, err := w.column(g, &w.image)
	if err != nil {
		return err
	}
	name, err := w.column(g, w.path)
	if err != nil {
		return err
	}
	label, err := w.column(g, w.label)
	if err != nil {
		return err
	}
	for range g.NumRows {
		var values [3][]byte
		for i, c := range []*column{image, name, label} {
			if c == nil {
				continue
			}
			if values[i], err = c.next(); err != nil {
				return unpacked.Damaged("row %d: %w", w.row, err)
			}
		}
		if err := w.add(values[0], string(values[1]), values[2]); err != nil {
			return err
		}
	}
	return nil
}

// column begins a leaf in a row group; nil where the file has no such leaf.
func (w *writer) column(g format.RowGroup, l *leaf) (*column, error) {
	if l == nil {
		return nil, nil
	}
	if l.index >= len(g.Columns) {
		return nil, unpacked.Damaged("%w", errThrift)
	}
	c, err := open(w.r, w.size, *l, g.Columns[l.index].MetaData, g.NumRows)
	if err != nil {
		return nil, unpacked.Damaged("%w", err)
	}
	return c, nil
}

// about is what stands in a row's .json.
type about struct {
	Label any    `json:"label"` // a number, a text, or null
	Name  string `json:"class_name,omitempty"`
	File  string `json:"file,omitempty"`
}

// add writes a row.
func (w *writer) add(image []byte, file string, label []byte) error {
	key := fmt.Sprintf("%09d", w.row)
	w.row++
	a := about{File: file[:min(len(file), maxText)]}
	switch {
	case label == nil:
	case len(label) > maxText:
		a.Label = []string{} // no label that is understood
	case w.label.kind == format.ByteArray:
		a.Label = string(label)
	default:
		n := int64(int32(binary.LittleEndian.Uint32(label)))
		if w.label.kind == format.Int64 {
			n = int64(binary.LittleEndian.Uint64(label))
		}
		if a.Label = n; n >= 0 && n < int64(len(w.names)) {
			a.Name = w.names[n]
		}
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if len(image) > 0 {
		if err := w.member(key+ending(file, image), image); err != nil {
			return err
		}
	}
	return w.member(key+".json", text)
}

// ending is that of an image's file. (What it is decoded as, its content says.)
func ending(file string, image []byte) string {
	if naming.IsImage(file) {
		return strings.ToLower(path.Ext(file))
	}
	if strings.HasPrefix(string(image[:min(len(image), 8)]), "\x89PNG") {
		return ".png"
	}
	return ".jpg"
}

func (w *writer) member(name string, content []byte) error {
	if w.left -= int64(len(content)); w.left < 0 {
		return unpacked.Damaged("it unpacks to more than %d times its size, the limit: no table of images is packed so well", maxRatio)
	}
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}
