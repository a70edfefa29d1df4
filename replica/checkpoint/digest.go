package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"mochi/replica/queue"
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

// StateDigest is one digest of everything that must be equal on all replicas but
// the queue: of the digests of these vectors, each [parameters] or [buffers], in
// the order of engine.Vectors; then of the probe's parameters and their momentum,
// where there is one.
func StateDigest(each []string) string { return DigestString(strings.Join(each, "")) }

// Verify compares the state with what the replicas that held it said of it:
// StateDigest, and the digests of the queue's shards (queue.Queue.Digests), whose
// number is that of the shards. "" is not compared, nor is a queue without shards.
func (s *State) Verify(state string, shards []string) error {
	if state != "" {
		vectors := [][]float32{s.QueryParams, s.KeyParams, s.Momentum, s.QueryBuffers, s.KeyBuffers}
		is := StateDigest(Digests(append(vectors, s.Probe.Vectors()...)...))
		if is != state {
			return fmt.Errorf("is not the state that was applied after step %d: its digest is %s, that of the members' was %s; memory or a processor may be faulty where it came from", s.Step, is, state)
		}
	}
	if len(shards) == 0 {
		return nil
	}
	q := queue.NewEmpty(s.K, s.Dim, len(shards), queue.FP32)
	for v, digest := range shards { // one at a time: a queue may be long
		if digest == "" {
			continue
		}
		q.Hold([]int{v})
		if err := q.Set(s.Queue, s.QueueLabels, s.QueuePtr, s.QueueFilled); err != nil {
			return err
		}
		if is := q.Digests()[v]; is != digest {
			return fmt.Errorf("is not the state that was applied after step %d: shard %d of its queue has the digest %s, that of the members' was %s; memory or a processor may be faulty where it came from", s.Step, v, is, digest)
		}
	}
	return nil
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
