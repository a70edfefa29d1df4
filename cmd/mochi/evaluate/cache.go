package evaluate

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"mochi/replica/data"
)

// Cache keeps features in a folder, so that no image goes through the same encoder
// twice. A file is found by what its features are of (origin), which stands in it in
// full: one of another checkpoint, data set or view is never taken. It grows by
// checked records as features come, under the name NAME.partial until it is
// complete; what broke off goes on after its last whole record.
type Cache struct {
	Dir  string
	Half bool // rows as fp16

	write func(f *os.File, record []byte) error // nil: f.Write; for tests
}

// origin is all that a feature depends on.
type origin struct {
	Encoder string // digest of architecture, parameters and statistics
	Feature string
	Data    string // digest of the samples: names and lengths, or pixels
	Decoder string // of JPEG
	View    string
	Engine  string // its numerics and precision
	Format  string // fp16 or fp32
	Images  int
	Length  int // of a feature
}

// cacheMagic begins every file of features.
const cacheMagic = "mochi features 1\n"

// name is a digest of the origin.
func (o origin) name() string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]) + ".features"
}

// header is what stands before the records: the length of a text, and the text.
func (o origin) header() []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	h := append([]byte(cacheMagic), binary.LittleEndian.AppendUint32(nil, uint32(len(text)))...)
	return append(h, text...)
}

// digest identifies samples: of files the names, lengths and classes, of others the
// pixels and classes.
func (s samples) digest() (string, error) {
	h := sha256.New()
	d := data.NewDecoder()
	defer d.Close()
	sized, files := s.of.(data.Sized)
	for _, i := range s.at {
		if files {
			fmt.Fprintf(h, "%q %d %d\n", sized.Name(i), sized.Size(i), s.of.Label(i))
			continue
		}
		img, err := s.of.Decode(i, d)
		var corrupt *data.CorruptError
		switch {
		case errors.As(err, &corrupt):
			fmt.Fprintf(h, "%q %d\n", s.of.Path(i), s.of.Label(i))
		case err != nil:
			return "", err
		default:
			fmt.Fprintf(h, "%d×%d %d\n", img.W, img.H, s.of.Label(i))
			h.Write(img.Pix)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// digest identifies the query encoder.
func (e *Encoders) digest() string {
	if e.sum != "" {
		return e.sum
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %d\n", e.from.Arch, e.state.Network().ImageSize)
	block := make([]byte, 0, 1<<16)
	for _, v := range [][]float32{e.from.QueryParams, e.from.QueryBuffers} {
		for len(v) > 0 {
			n := min(len(v), cap(block)/4)
			block = block[:0]
			for _, x := range v[:n] {
				block = binary.LittleEndian.AppendUint32(block, math.Float32bits(x))
			}
			h.Write(block)
			v = v[n:]
		}
	}
	e.sum = hex.EncodeToString(h.Sum(nil)[:16])
	return e.sum
}

// store is a file of features, being read or written.
type store struct {
	cache    *Cache
	o        origin
	path     string // of the complete file
	f        *os.File
	complete bool
}

// open finds what there is of features, into e, and how many images have been
// looked at for it; the rest is to be added. Close it.
func (c *Cache) open(o origin, e *extracted) (s *store, tried int, err error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, 0, fmt.Errorf("cache: %w", err)
	}
	s = &store{cache: c, o: o, path: filepath.Join(c.Dir, o.name())}
	s.f, err = os.Open(s.path)
	if s.complete = err == nil; errors.Is(err, os.ErrNotExist) {
		s.f, err = os.OpenFile(s.path+".partial", os.O_RDWR|os.O_CREATE, 0o644)
		if err == nil {
			if busy := unix.Flock(int(s.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); busy != nil {
				err = fmt.Errorf("%s is being written by another process: wait for it, or choose another folder", s.f.Name())
			}
		}
	}
	if err == nil {
		tried, err = s.read(e)
	}
	if err != nil {
		s.Close()
		return nil, 0, fmt.Errorf("cache: %w", err)
	}
	return s, tried, nil
}

// Close ends it.
func (s *store) Close() {
	if s.f != nil {
		_ = s.f.Close() // all of worth is synced
	}
}

// read takes what is whole, and leaves a file that is not complete at its end.
func (s *store) read(e *extracted) (tried int, err error) {
	in := bufio.NewReaderSize(s.f, 1<<20)
	want := s.o.header()
	got := make([]byte, len(want))
	n, err := io.ReadFull(in, got)
	switch {
	case err == nil && bytes.Equal(got, want):
	case s.complete || n > 0 && !bytes.HasPrefix(want, got[:n]):
		return 0, fmt.Errorf("%s holds the features of something else, or is damaged: remove it", s.f.Name())
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return 0, err
	default: // new, or cut off in its header
		return 0, s.begin()
	}
	end := int64(len(want))
	for tried < s.o.Images {
		length, more, err := s.record(in, e)
		if err != nil {
			return 0, err
		}
		if length == 0 {
			break
		}
		tried, end = tried+more, end+length
	}
	if s.complete {
		if tried < s.o.Images {
			return 0, fmt.Errorf("%s is damaged after %d of %d images: remove it", s.f.Name(), tried, s.o.Images)
		}
		return tried, nil
	}
	if err := s.f.Truncate(end); err != nil {
		return 0, err
	}
	_, err = s.f.Seek(end, io.SeekStart)
	return tried, err
}

// begin writes the header of a new file.
func (s *store) begin() error {
	if err := s.f.Truncate(0); err != nil {
		return err
	}
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.put(s.o.header())
}

// put writes, or says what to do about a disk that is full.
func (s *store) put(b []byte) error {
	write := s.cache.write
	if write == nil {
		write = func(f *os.File, b []byte) error { _, err := f.Write(b); return err }
	}
	err := write(s.f, b)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("cache: %w: make room, or choose another folder; what is there already (%s) will be used", err, s.f.Name())
	}
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// width is the bytes of a value.
func (o origin) width() int {
	if o.Format == "fp16" {
		return 2
	}
	return 4
}

// A record is: images looked at, rows (both uint32); of each row its index in the
// split (uint32), the hash of its file (uint64) and its values; the xxhash of all
// that. Integers are little-endian.
const recordHead, rowHead, recordEnd = 8, 12, 8

// record reads the next one into e: its length, 0 at the end of what is whole.
func (s *store) record(in *bufio.Reader, e *extracted) (length int64, tried int, err error) {
	head, err := in.Peek(recordHead)
	if err != nil {
		return 0, 0, whole(err)
	}
	tried = int(binary.LittleEndian.Uint32(head))
	rows := int(binary.LittleEndian.Uint32(head[4:]))
	if tried < 1 || tried > evalBatch || rows > tried {
		return 0, 0, nil
	}
	row := rowHead + s.o.Length*s.o.width()
	b := make([]byte, recordHead+rows*row+recordEnd)
	if _, err := io.ReadFull(in, b); err != nil {
		return 0, 0, whole(err)
	}
	if xxhash.Sum64(b[:len(b)-recordEnd]) != binary.LittleEndian.Uint64(b[len(b)-recordEnd:]) {
		return 0, 0, nil
	}
	for r := range rows {
		at := b[recordHead+r*row:]
		e.samples = append(e.samples, int(binary.LittleEndian.Uint32(at)))
		e.hashes = append(e.hashes, binary.LittleEndian.Uint64(at[4:]))
		for i := range s.o.Length {
			if s.o.Format == "fp16" {
				e.features[0] = append(e.features[0], fromHalf(binary.LittleEndian.Uint16(at[rowHead+2*i:])))
			} else {
				e.features[0] = append(e.features[0], math.Float32frombits(binary.LittleEndian.Uint32(at[rowHead+4*i:])))
			}
		}
	}
	e.leftOut += tried - rows
	return int64(len(b)), tried, nil
}

// whole is nil where a file ends.
func whole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// add appends the rows of a batch; the values become what a reader will get.
func (s *store) add(r rows) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(r.tried))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.samples)))
	for i, sample := range r.samples {
		b = binary.LittleEndian.AppendUint32(b, uint32(sample))
		b = binary.LittleEndian.AppendUint64(b, r.hashes[i])
		values := r.features[0][i*s.o.Length : (i+1)*s.o.Length]
		for j, v := range values {
			if s.o.Format != "fp16" {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
				continue
			}
			half := toHalf(v)
			if half&0x7fff == 0x7c00 {
				return fmt.Errorf("cache: a feature of %g does not fit fp16: use --cache-format fp32", v)
			}
			b = binary.LittleEndian.AppendUint16(b, half)
			values[j] = fromHalf(half)
		}
	}
	return s.put(binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b)))
}

// finish gives a file that is complete its name.
func (s *store) finish() error {
	if s.complete {
		return nil
	}
	err := s.f.Sync()
	if err == nil {
		err = os.Rename(s.path+".partial", s.path)
	}
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// originOf is that of features of samples.
func (e *Encoders) originOf(x *extractor, s samples, v view, decoder string, c *Cache) (origin, error) {
	digest, err := s.digest()
	info := e.engine.Info()
	o := origin{
		Encoder: e.digest(), Feature: string(x.features[0]), Data: digest, Decoder: decoder, View: v.name,
		Engine: fmt.Sprintf("%s %s", info.Numerics, e.precision), Format: "fp32", Images: len(s.at), Length: x.lengths[0],
	}
	if c.Half {
		o.Format = "fp16"
	}
	return o, err
}
