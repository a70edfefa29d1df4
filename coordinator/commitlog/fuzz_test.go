package commitlog_test

import (
	"reflect"
	"testing"

	"mochi/coordinator/commitlog"
	"mochi/coordinator/wal"
	"mochi/coordinator/wal/waltest"
)

// FuzzRecords: records of any content make a log that opens, says what of it is
// damaged, has one history, and takes the next commit of it.
func FuzzRecords(f *testing.F) {
	f.Add(uint8(1), `{"step":1,"batch":8}`, uint8(2), `{"term":1,"base":0}`, uint8(1), `{"step":2,"cursor":8,"batch":8}`)
	f.Add(uint8(2), `{"cut":1,"anew":true,"base":-5}`, uint8(1), `{"step":9}`, uint8(7), `x`)
	f.Add(uint8(1), `{"step":-1,"cursor":-9223372036854775808}`, uint8(1), `null`, uint8(2), `{"base":9223372036854775807,"cut":-1}`)
	f.Fuzz(func(t *testing.T, k1 uint8, d1 string, k2 uint8, d2 string, k3 uint8, d3 string) {
		disk := waltest.New(1)
		w, err := wal.Open(disk, wal.Options{SegmentBytes: 8000})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range []wal.Record{{Kind: k1, Data: []byte(d1)}, {Kind: k2, Data: []byte(d2)}, {Kind: k3, Data: []byte(d3)}} {
			r.Index = uint64(i + 1)
			if w.Append(r) != nil {
				return // too long
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		l, found, err := commitlog.Open(disk, commitlog.Options{Wal: wal.Options{SegmentBytes: 8000}})
		if err != nil {
			return
		}
		commits, err := l.After(t.Context(), -1<<62)
		if err != nil {
			t.Fatalf("%v, found %+v", err, found)
		}
		for i := 1; i < len(commits); i++ {
			if err := commits[i].Follows(commits[i-1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		again, found, err := commitlog.Open(disk, commitlog.Options{Wal: wal.Options{SegmentBytes: 8000}})
		if err != nil || found.Damage != "" {
			t.Fatalf("what was opened is not whole: %+v, %v", found, err)
		}
		back, err := again.After(t.Context(), -1<<62)
		if err != nil || !reflect.DeepEqual(back, commits) {
			t.Fatalf("%+v became %+v, %v", commits, back, err)
		}
	})
}
