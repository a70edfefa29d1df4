package shards

import (
	"archive/tar"
	"bytes"
	"testing"
)

// Whatever a tar file holds, scanning it ends, and every sample lies where it
// can lie.
func FuzzScan(f *testing.F) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range []string{"a/1.jpg", "a/1.cls", "a/1.json", "b.c.png", ".x.jpg", "d/"} {
			h := tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3, Mode: 0o644, Format: format}
			if name == "d/" {
				h.Typeflag, h.Size = tar.TypeDir, 0
			}
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			w.Write([]byte("1{}")[:h.Size])
		}
		w.Close()
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:1100])
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := Scan(bytes.NewReader(content), int64(len(content)))
		for i, sample := range s.Samples {
			if sample.Offset < 512 || sample.Offset > int64(len(content)) || sample.Size < 0 || sample.Name == "" || sample.Key == "" {
				t.Fatalf("sample %+v in %d bytes", sample, len(content))
			}
			if whole := sample.Offset+sample.Size <= int64(len(content)); !whole && s.Fault == nil {
				t.Fatalf("sample %+v leaves %d bytes without a fault", sample, len(content))
			}
			if i > 0 && s.Samples[i-1].Key > sample.Key {
				t.Fatal("not sorted")
			}
		}
	})
}
