// Package parquet writes features of images as an Apache Parquet file, by
// github.com/parquet-go/parquet-go.
package parquet

import (
	"io"

	"github.com/parquet-go/parquet-go"
)

// Row is an image and its feature.
type Row struct {
	Path    string    `parquet:"path"`
	Split   string    `parquet:"split,dict"`
	Label   int32     `parquet:"label"` // −1: not known
	Feature []float32 `parquet:"feature,list"`
}

// Writer writes rows.
type Writer struct {
	w     *parquet.GenericWriter[Row]
	count int
}

// group is how many rows are held in memory until they are written.
const group = 4096

// NewWriter begins a file.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: parquet.NewGenericWriter[Row](w, parquet.CreatedBy("mochi", "", ""))}
}

// Add writes rows.
func (w *Writer) Add(rows []Row) error {
	n, err := w.w.Write(rows)
	if w.count += n; err == nil && w.count >= group {
		w.count = 0
		err = w.w.Flush()
	}
	return err
}

// Close ends the file.
func (w *Writer) Close() error { return w.w.Close() }
