package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// Digest identifies vectors by their bits: 16 hexadecimal digits of xxhash64
// over all elements, little-endian, one vector after the other. It reads at
// memory speed and allocates nothing but the result.
func Digest(vectors ...[]float32) string {
	h := xxhash.New()
	for _, v := range vectors {
		h.Write(littleEndian(v))
	}
	return hex(h.Sum64())
}

// Digests is Digest of each vector, all at the same time.
func Digests(vectors ...[]float32) []string {
	digests := make([]string, len(vectors))
	var running sync.WaitGroup
	for i, v := range vectors {
		running.Go(func() { digests[i] = Digest(v) })
	}
	running.Wait()
	return digests
}

// DigestString is xxhash64 of a string, for combining digests.
func DigestString(s string) string { return hex(xxhash.Sum64String(s)) }

func hex(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// littleEndian views (on a little-endian machine) or converts a vector to its
// bytes in the file. The bytes are for reading only.
func littleEndian[T float32 | int32 | int64](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
	}
	var b []byte
	for _, x := range v {
		switch x := any(x).(type) {
		case float32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		case int32:
			b = binary.LittleEndian.AppendUint32(b, uint32(x))
		case int64:
			b = binary.LittleEndian.AppendUint64(b, uint64(x))
		}
	}
	return b
}
