package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// The format of files; all numbers are little-endian.
const (
	version       = 1
	segmentHeader = 32
	recordHeader  = 32
	recordMagic   = 0x57 // a header is not zeros
	endMark       = 0xED // neither is what a record ends with
	sector        = 512  // what a disk writes as a whole
	listName      = "list"
	extension     = ".wal"
	temporary     = ".tmp"
)

var (
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
	segmentMagic = [8]byte{'m', 'o', 'c', 'h', 'i', 'w', 'a', 'l'}
)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func recordSize(data int) int { return recordHeader + data + 1 }

// segmentName is the file of the segment that begins with a record.
func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, extension) }

// firstOf is the inverse of segmentName; false: the name is no segment's.
func firstOf(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, extension)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

func encodeSegment(first uint64) []byte {
	b := append([]byte(nil), segmentMagic[:]...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, first)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint32(b, sum(b))
}

// place is where a record stands in its batch.
type place struct {
	batch uint64 // index of the first record of its Append
	last  bool   // it ends the batch
}

// flags of a header.
const flagLast = 1

// encode appends a record.
func encode(to []byte, r Record, p place) []byte {
	at := len(to)
	flags := byte(0)
	if p.last {
		flags = flagLast
	}
	to = append(to, recordMagic, r.Kind, flags, 0)
	to = binary.LittleEndian.AppendUint32(to, uint32(len(r.Data)))
	to = binary.LittleEndian.AppendUint64(to, r.Index)
	to = binary.LittleEndian.AppendUint64(to, p.batch)
	to = binary.LittleEndian.AppendUint32(to, sum(r.Data))
	to = binary.LittleEndian.AppendUint32(to, sum(to[at:]))
	return append(append(to, r.Data...), endMark)
}

// verdict is what can be said of the bytes at a place.
type verdict int

const (
	intact   verdict = iota // a record
	short                   // the file ends within it
	mangled                 // its header is none
	mistaken                // its header is one, its bytes are not those of then
)

// decode reads the record at the start of b, and its size. Both are known unless it
// is mangled or short of its header.
func decode(b []byte) (r Record, p place, size int, v verdict) {
	if len(b) < recordHeader {
		return r, p, 0, short
	}
	h := b[:recordHeader]
	length := binary.LittleEndian.Uint32(h[4:])
	if sum(h[:28]) != binary.LittleEndian.Uint32(h[28:]) || h[0] != recordMagic || length > MaxBatch {
		return r, p, 0, mangled
	}
	r = Record{Index: binary.LittleEndian.Uint64(h[8:]), Kind: h[1]}
	p = place{batch: binary.LittleEndian.Uint64(h[16:]), last: h[2]&flagLast != 0}
	size = recordSize(int(length))
	if size > len(b) {
		return r, p, size, short
	}
	data := b[recordHeader : size-1]
	if sum(data) != binary.LittleEndian.Uint32(h[24:]) || b[size-1] != endMark {
		return r, p, size, mistaken
	}
	r.Data = append([]byte(nil), data...)
	return r, p, size, intact
}

// list is the file of that name: which segments count.
type list struct {
	first    uint64   // the first index that counts
	segments []uint64 // first index of each, ascending
}

// encode writes lines of text, the last one with the sum of the others.
func (l list) encode() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "mochi wal %d\nfirst %d\n", version, l.first)
	for _, s := range l.segments {
		fmt.Fprintf(&b, "segment %d\n", s)
	}
	return fmt.Appendf([]byte(b.String()), "sum %08x\n", sum([]byte(b.String())))
}

// decodeList is the inverse of encode; the error says what is wrong.
func decodeList(b []byte) (list, error) {
	var l list
	text := string(b)
	at := strings.LastIndex(text, "sum ")
	if at < 0 || text[at:] != fmt.Sprintf("sum %08x\n", sum(b[:at])) {
		return l, fmt.Errorf("its sum does not match")
	}
	lines := strings.Split(strings.TrimSuffix(text[:at], "\n"), "\n")
	if len(lines) < 2 || lines[0] != fmt.Sprintf("mochi wal %d", version) {
		return l, fmt.Errorf("it is of another version (%q)", lines[0])
	}
	if n, err := fmt.Sscanf(lines[1], "first %d", &l.first); n != 1 || err != nil || l.first < 1 {
		return l, fmt.Errorf("it has no first index (%q)", lines[1])
	}
	for _, line := range lines[2:] {
		var s uint64
		if n, err := fmt.Sscanf(line, "segment %d", &s); n != 1 || err != nil || s < 1 {
			return l, fmt.Errorf("%q is no segment", line)
		}
		if n := len(l.segments); n > 0 && l.segments[n-1] >= s {
			return l, fmt.Errorf("its segments are not in order")
		}
		l.segments = append(l.segments, s)
	}
	return l, nil
}
