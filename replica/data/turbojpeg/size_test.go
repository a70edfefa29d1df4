package turbojpeg

import (
	"errors"
	"io"
	"testing"
	"time"
)

// FuzzReadFrame: the headers of any file are read in time that its length bounds, and
// what is said of it has a size.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x11\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"))
	f.Add([]byte("\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x0b\x08\x00\x10\x00\x11\x01\x07\x11\x00\xff\xda\x00\x08\x01\x07\x00\x00\x00\x00\x12\xff\x00\xff\xd0\xff\xda\x00\x08\x01\x07\x00\x01\x3f\x00"))
	f.Add([]byte("\xff\xd8\xff\xc2\x00\x05\x08\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		start := time.Now()
		frame, err := ReadFrame(content, nil)
		w, h, serr := Size(content)
		if (err == nil) != (serr == nil) || err == nil && (w != frame.W || h != frame.H || w < 1 || h < 1) {
			t.Fatalf("frame %+v, %v; size %d×%d, %v", frame, err, w, h, serr)
		}
		if err != nil {
			return
		}
		if n := frame.Visits(); n < 0 || frame.Samples() < 1 || frame.Samples() > 4*15*15 {
			t.Fatalf("%d visits, %v samples", n, frame.Samples())
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Fatalf("%v for %d bytes", d, len(content))
		}
	})
}

func TestReadFrame(t *testing.T) {
	for text, want := range map[string]error{
		"":                             nil,
		"\xff\xd8":                     io.ErrUnexpectedEOF,
		"\xff\xd8\xff\xd9":             nil,
		"\xff\xd8\xff\xc0\x00\x01":     nil,
		"\xff\xd8\xff\xc0\x00\x0b\x08": io.ErrUnexpectedEOF,
	} {
		if _, err := ReadFrame([]byte(text), nil); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
