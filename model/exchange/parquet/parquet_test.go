package parquet

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// What is written is read back by the library, over several groups of rows.
func TestRows(t *testing.T) {
	var want []Row
	for i := range group + 10 {
		want = append(want, Row{Path: fmt.Sprintf("a/%d.jpg", i), Split: []string{"train", "test"}[i%2], Label: int32(i%3) - 1, Feature: []float32{float32(i), -0.5}})
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	for from := 0; from < len(want); from += 100 {
		if err := w.Add(want[from:min(from+100, len(want))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := parquet.Read[Row](bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%d rows, want %d; %v", len(got), len(want), err)
	}
}
