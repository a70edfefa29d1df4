package quorum

import (
	"bytes"
	"testing"
)

// FuzzEntry: an entry of any content is applied or refused, and what the members hold
// then can be written as a snapshot and read again.
func FuzzEntry(f *testing.F) {
	f.Add([]byte("\x02\x01{\"step\":1,\"batch\":4}"), uint64(1))
	for kind := range byte(16) {
		f.Add(append([]byte{kind, 1}, `{"above":3,"step":1,"round":2,"text":"x","commits":["e30="],"name":"a"}`...), uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, term uint64) {
		s := newState()
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		for range 2 {
			s.apply(term, e) //nolint:errcheck // refused, or not
		}
		var b bytes.Buffer
		if err := s.write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := readState(&b); err != nil {
			t.Fatalf("entry %q: %v", data, err)
		}
	})
}

// FuzzReadState: a snapshot of any content is read or refused, and costs no more than
// it has.
func FuzzReadState(f *testing.F) {
	var b bytes.Buffer
	if err := newState().write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes()[len(snapshotMagic):])
	f.Add(append([]byte("\x1b"), `{"commits":1,"base":0,"x":1}`...))
	f.Fuzz(func(t *testing.T, rest []byte) {
		s, err := readState(bytes.NewReader(append([]byte(snapshotMagic), rest...)))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := s.write(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := readState(&b); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}
