package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// The part of the safetensors format that a checkpoint needs, after the
// description in huggingface/safetensors: tensors lie in the data section
// without gap or overlap, offsets count from its start.

// maxHeader bounds the JSON header of a file of an unknown network: that of a
// ResNet-50 has 90 KB. (The reference reader takes up to 100 MB, which are some GB
// once they are read.)
const maxHeader = 4 << 20

// noDigest stands for the digest while it is computed.
const noDigest = "0000000000000000"

// entry is one tensor of a file.
type entry struct {
	name       string
	dtype      string // F32, I32 or I64
	shape      []int
	begin, end int64 // in the data section
}

func (e entry) elements() int { return int((e.end - e.begin) / elementSize(e.dtype)) }

// elementSize is 0 for types that a checkpoint does not use.
func elementSize(dtype string) int64 {
	switch dtype {
	case "F32", "I32":
		return 4
	case "I64":
		return 8
	}
	return 0
}

// header is a file's header: its metadata and its tensors by offset.
type header struct {
	metadata map[string]string
	tensors  []entry
	raw      []byte // as in the file, length prefix included
}

func (h *header) dataSize() int64 {
	if len(h.tensors) == 0 {
		return 0
	}
	return h.tensors[len(h.tensors)-1].end
}

// digestAt is the position of the digest's 16 digits in raw. Quotes inside
// JSON strings are escaped, so the key cannot be found anywhere else.
func (h *header) digestAt() int {
	key := []byte(`"digest":"`)
	i := bytes.Index(h.raw, key)
	if i < 0 || i+len(key)+len(noDigest) > len(h.raw) {
		return -1
	}
	return i + len(key)
}

// hashed starts the file's digest: the header without the digest itself.
func (h *header) hashed() *xxhash.Digest {
	d := xxhash.New()
	at := h.digestAt()
	d.Write(h.raw[:at])
	d.WriteString(noDigest)
	d.Write(h.raw[at+len(noDigest):])
	return d
}

// encodeHeader writes raw, padded so that the data section is aligned to 8.
func encodeHeader(metadata map[string]string, tensors []entry) (*header, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	meta, err := json.Marshal(metadata) // keys sorted
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, `{"__metadata__":%s`, meta)
	for _, t := range tensors {
		name, err := json.Marshal(t.name)
		if err != nil {
			return nil, err
		}
		shape := strings.ReplaceAll(fmt.Sprint(t.shape), " ", ",")
		fmt.Fprintf(&b, `,%s:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, name, t.dtype, shape, t.begin, t.end)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	raw := b.Bytes()
	binary.LittleEndian.PutUint64(raw, uint64(len(raw)-8))
	return &header{metadata: metadata, tensors: tensors, raw: raw}, nil
}

// readHeader reads and checks a header. size is that of the whole file, or −1
// when unknown.
func readHeader(r io.Reader, size int64, most uint64) (*header, error) {
	var prefix [8]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, cut(err, "the file is shorter than a header")
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n < 2 || n > most {
		return nil, invalid("not a safetensors file, or not of this network (a header of %d bytes: the limit is %d)", n, most)
	}
	if size >= 0 && int64(n)+8 > size {
		return nil, invalid("cut short, or not a safetensors file: the header should take %d bytes, the file has %d", n, size)
	}
	raw := bytes.NewBuffer(prefix[:])
	if got, err := io.CopyN(raw, r, int64(n)); err != nil {
		return nil, cut(err, fmt.Sprintf("the header should take %d bytes, there are %d", n, got))
	}
	h, err := parseHeader(raw.Bytes())
	if err != nil {
		return nil, err
	}
	if want := int64(n) + 8 + h.dataSize(); size >= 0 && size != want {
		if size < want {
			return nil, invalid("cut short: it should have %d bytes and has %d", want, size)
		}
		return nil, invalid("%d bytes too long", size-want)
	}
	return h, nil
}

// parseHeader checks everything that later code relies on: known types, sizes
// that follow from shapes, tensors back to back from offset 0.
func parseHeader(raw []byte) (*header, error) {
	h := &header{raw: raw}
	var items map[string]json.RawMessage
	if raw[8] != '{' || json.Unmarshal(raw[8:], &items) != nil {
		return nil, invalid("not a safetensors file, or damaged (the header is not JSON)")
	}
	for name, item := range items {
		if name == "__metadata__" {
			if json.Unmarshal(item, &h.metadata) != nil {
				return nil, invalid("the metadata are not strings")
			}
			continue
		}
		var t struct {
			DType   string  `json:"dtype"`
			Shape   []int64 `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		if json.Unmarshal(item, &t) != nil || len(t.Offsets) != 2 {
			return nil, invalid("tensor %q: its description is malformed", name)
		}
		size := elementSize(t.DType)
		if size == 0 {
			return nil, invalid("tensor %q: type %q is not one of F32, I32, I64", name, t.DType)
		}
		e := entry{name: name, dtype: t.DType, begin: t.Offsets[0], end: t.Offsets[1]}
		for _, n := range t.Shape {
			if n < 0 || n > math.MaxInt32 || (n > 0 && size > math.MaxInt64/4/n) {
				return nil, invalid("tensor %q: shape %v", name, t.Shape)
			}
			size *= n
			e.shape = append(e.shape, int(n))
		}
		if e.begin < 0 || e.end < e.begin || e.end > math.MaxInt64/2 || e.end-e.begin != size {
			return nil, invalid("tensor %q: offsets %v do not fit %s %v", name, t.Offsets, t.DType, t.Shape)
		}
		h.tensors = append(h.tensors, e)
	}
	slices.SortFunc(h.tensors, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	var at int64
	for _, e := range h.tensors {
		if e.begin != at {
			return nil, invalid("tensor %q starts at byte %d of the data, not at %d", e.name, e.begin, at)
		}
		at = e.end
	}
	return h, nil
}

// readData reads the data section, tensor by tensor, and verifies the digest.
// Tensor i is appended to sinks[i], a *[]float32, *[]int32 or *[]int64 that
// suits its type. trusted says that the data section is known to be as long as
// the header claims, so that memory can be taken in advance.
func (h *header) readData(r io.Reader, sinks []any, trusted bool) error {
	at := h.digestAt()
	if at < 0 {
		return invalid("it has no digest")
	}
	if trusted {
		reserve(h.tensors, sinks)
	}
	sum := h.hashed()
	chunk := make([]byte, min(256<<10, h.dataSize()/8*8+8)) // whole elements of any type
	for i, e := range h.tensors {
		for left := e.end - e.begin; left > 0; {
			b := chunk[:min(left, int64(len(chunk)))]
			if n, err := io.ReadFull(r, b); err != nil {
				return cut(err, fmt.Sprintf("tensor %q ends %d bytes early", e.name, left-int64(n)))
			}
			sum.Write(b)
			left -= int64(len(b))
			switch dst := sinks[i].(type) {
			case *[]float32:
				for ; len(b) > 0; b = b[4:] {
					*dst = append(*dst, math.Float32frombits(binary.LittleEndian.Uint32(b)))
				}
			case *[]int32:
				for ; len(b) > 0; b = b[4:] {
					*dst = append(*dst, int32(binary.LittleEndian.Uint32(b)))
				}
			case *[]int64:
				for ; len(b) > 0; b = b[8:] {
					*dst = append(*dst, int64(binary.LittleEndian.Uint64(b)))
				}
			}
		}
	}
	if n, err := io.ReadFull(r, chunk[:1]); n > 0 {
		return invalid("there is more after the last tensor")
	} else if err != io.EOF {
		return err
	}
	said := string(h.raw[at : at+len(noDigest)])
	if found := hex(sum.Sum64()); found != said {
		return invalid("digest mismatch: it says %s, its contents give %s: damaged, or rewritten by another program", said, found)
	}
	return nil
}

// reserve allocates each sink at the total size of its tensors.
func reserve(tensors []entry, sinks []any) {
	total := map[any]int{}
	for i, e := range tensors {
		total[sinks[i]] += e.elements()
	}
	for sink, n := range total {
		switch dst := sink.(type) {
		case *[]float32:
			*dst = make([]float32, 0, n)
		case *[]int32:
			*dst = make([]int32, 0, n)
		case *[]int64:
			*dst = make([]int64, 0, n)
		}
	}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// cut turns an end of file into a statement about the file; other errors
// (a failing disk) stay what they are.
func cut(err error, what string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("cut short: %s", what)
	}
	return err
}
