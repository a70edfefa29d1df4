package allreduce

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"mochi/allreduce/codec"
)

// HeaderLen is the size of every frame's header, bytes.
const HeaderLen = fieldsLen + numberLen + tagLen

// What a header consists of, bytes.
const (
	fieldsLen = 48 // what it says
	numberLen = 8  // of the frame, where it is sealed
)

// frameMagic starts every header; it changes with the format.
const frameMagic = 0x6d32

// kind says what a frame is for.
type kind uint8

const (
	kindData  kind = iota + 1 // forward: one segment; seq counts data frames on the link
	kindBeat                  // forward: alive; seq = data frames sent so far
	kindGrant                 // backward: alive; seq = data frames consumed so far
	kindProbe                 // forward: asks for an acknowledgement; seq as in kindBeat
	kindAck                   // backward: answers a probe; seq = data frames received so far
	kindBye                   // both ways: the sender leaves; seq forward as in kindBeat, backward as in kindGrant
	kindAbort                 // both ways: the round failed; the payload is an abortNotice
)

// Tag identifies a collective. Ranks must agree on it: it is checked, not
// used for matching.
type Tag struct {
	Step   uint64
	Bucket uint32
}

// op is the collective a data frame belongs to.
type op uint8

const (
	opSum op = iota + 1
	opMax
	opGather
	opBroadcast
	opBarrier
)

var opNames = [...]string{opSum: "all-reduce sum", opMax: "all-reduce max", opGather: "all-gather", opBroadcast: "broadcast", opBarrier: "barrier"}

func (o op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// header is what a frame says about itself. On the wire, little-endian:
//
//	 0 magic 2 | kind 1 | op 1 | sender 2 | world 2
//	 8 fence 8 | 16 seq 8 | 24 step 8 | 32 total 8
//	40 bucket 4 | 44 index 4 | 48 check 24
//
// The check is the CRC32C of the 48 bytes before and the payload, and zeros; or, where the
// Group has a key, the number of the frame (8) and its tag (16, see sealing).
type header struct {
	kind   kind
	op     op
	sender uint16
	world  uint16
	fence  uint64 // hash of job and round
	seq    uint64
	step   uint64
	total  uint64 // length of the whole collective: elements (broadcast: bytes)
	bucket uint32
	index  uint32 // of the segment among those this link carries in this collective
}

// encode writes h and the checksum into b, HeaderLen bytes.
func (h *header) encode(b, payload []byte) {
	h.put(b)
	sealSum(b, checksum(b, payload))
}

// put writes h into b without the check.
func (h *header) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], frameMagic)
	b[2], b[3] = byte(h.kind), byte(h.op)
	le.PutUint16(b[4:], h.sender)
	le.PutUint16(b[6:], h.world)
	le.PutUint64(b[8:], h.fence)
	le.PutUint64(b[16:], h.seq)
	le.PutUint64(b[24:], h.step)
	le.PutUint64(b[32:], h.total)
	le.PutUint32(b[40:], h.bucket)
	le.PutUint32(b[44:], h.index)
}

// sealSum adds the checksum to a header.
func sealSum(b []byte, sum uint32) {
	binary.LittleEndian.PutUint32(b[fieldsLen:], sum)
	clear(b[fieldsLen+4 : HeaderLen])
}

// decode reads b. It reports false when the frame is damaged or not a frame.
func (h *header) decode(b, payload []byte) bool {
	if !isHeader(b) || binary.LittleEndian.Uint32(b[fieldsLen:]) != checksum(b, payload) {
		return false
	}
	for _, zero := range b[fieldsLen+4:] {
		if zero != 0 {
			return false
		}
	}
	h.get(b)
	return true
}

func isHeader(b []byte) bool {
	return len(b) == HeaderLen && binary.LittleEndian.Uint16(b) == frameMagic
}

// get reads what put has written.
func (h *header) get(b []byte) {
	le := binary.LittleEndian
	*h = header{
		kind: kind(b[2]), op: op(b[3]),
		sender: le.Uint16(b[4:]), world: le.Uint16(b[6:]),
		fence: le.Uint64(b[8:]), seq: le.Uint64(b[16:]), step: le.Uint64(b[24:]), total: le.Uint64(b[32:]),
		bucket: le.Uint32(b[40:]), index: le.Uint32(b[44:]),
	}
}

// What frames without a key are checked by is what these three compute: of the
// header before the checksum and then of the payload.

func checksum(b, payload []byte) uint32 { return sumOver(sumOver(0, b[:fieldsLen]), payload) }

// sumOver continues a checksum over p.
func sumOver(sum uint32, p []byte) uint32 { return codec.Checksum(sum, p) }

// sumCopy copies src to dst and continues a checksum over it.
func sumCopy(sum uint32, dst, src []byte) uint32 { return codec.CopyChecksum(sum, dst, src) }

// fenceOf is the value that sets apart the frames of one round of one job.
func fenceOf(id Identity) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d", id.Job, id.Round)
	return h.Sum64()
}

// abortNotice travels around the ring when a rank fails, so that all ranks
// name the same suspect instead of each its own neighbour.
type abortNotice struct {
	suspect int
	origin  int // the rank that noticed
	cause   uint8
	text    string
}

// The causes a notice can carry, by number on the wire.
var abortCauses = [...]error{ErrAborted, ErrTimeout, ErrLost, ErrDown, ErrMismatch}

func (n abortNotice) encode() []byte {
	b := make([]byte, 5, 5+len(n.text))
	binary.LittleEndian.PutUint16(b, uint16(n.suspect))
	binary.LittleEndian.PutUint16(b[2:], uint16(n.origin))
	b[4] = n.cause
	return append(b, n.text...)
}

func decodeAbort(b []byte) (abortNotice, bool) {
	if len(b) < 5 || int(b[4]) >= len(abortCauses) {
		return abortNotice{}, false
	}
	return abortNotice{
		suspect: int(binary.LittleEndian.Uint16(b)),
		origin:  int(binary.LittleEndian.Uint16(b[2:])),
		cause:   b[4],
		text:    string(b[5:]),
	}, true
}
