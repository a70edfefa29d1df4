package safetensors

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzOpen: a header of any text before any data is read, and each tensor that passes
// its check lies in the file.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}}`), []byte("0123456789"))
	f.Add([]byte(`{"a":{"dtype":"I64","shape":[4294967296,4294967296],"data_offsets":[0,8]}}`), []byte("01234567"))
	f.Fuzz(func(t *testing.T, text, data []byte) {
		blob := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
		blob = append(append(blob, text...), data...)
		file, err := Open(bytes.NewReader(blob), int64(len(blob)))
		if err != nil {
			return
		}
		for name, a := range file.Arrays {
			if a.Check() != nil {
				continue
			}
			if n := a.Len(); n > len(blob) {
				t.Fatalf("%q has %d elements in %d bytes", name, n, len(blob))
			}
			a.Float32s() //nolint:errcheck // only that it ends
		}
	})
}
