package pickle

import (
	"bytes"
	"testing"
)

// FuzzNext: whatever a pickle says, reading it ends, runs nothing, and makes no more
// values than it may.
func FuzzNext(f *testing.F) {
	f.Add([]byte("\x80\x02}q\x00X\x01\x00\x00\x00aK\x01s."))
	f.Add([]byte("\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01e."))
	f.Add([]byte("cos\nsystem\n(S'true'\ntR."))
	f.Add([]byte("(lp0\n(dp1\nh0\na."))
	f.Fuzz(func(t *testing.T, content []byte) {
		r := NewReader(bytes.NewReader(content))
		r.Limits = Limits{Bytes: 1 << 16, Objects: 1 << 12}
		for range 3 {
			if _, err := r.Next(); err != nil {
				return
			}
			if r.Offset() > int64(len(content)) {
				t.Fatalf("%d bytes of %d", r.Offset(), len(content))
			}
		}
	})
}
