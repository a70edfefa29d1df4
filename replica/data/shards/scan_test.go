package shards

import (
	"archive/tar"
	"bytes"
	"strings"
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

// A member that cannot be taken is a fault that names the limit; what comes before
// it counts.
func TestScanNamesItsLimits(t *testing.T) {
	long := strings.Repeat("x/", maxName/2) + "1.jpg"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a.jpg", long, "b.jpg"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	s := Scan(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if len(s.Samples) != 1 || s.Fault == nil || !strings.Contains(s.Fault.Error(), "the limit is 4096") {
		t.Errorf("%d samples, %v", len(s.Samples), s.Fault)
	}
	for want, err := range map[string]error{
		"more than 4000000 members": tooMuch(&tar.Header{}, maxMembers, 1),
		"has 3 bytes, the shard 2":  tooMuch(&tar.Header{Size: 3}, 0, 2),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := tooMuch(&tar.Header{Size: 2, Name: "a"}, maxMembers-1, 2); err != nil {
		t.Error(err)
	}
}
