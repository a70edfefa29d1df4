package data

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"mochi/replica/augment"
	"mochi/replica/data/turbojpeg"
)

// A file says how large its image is, and some kilobytes can say a gigabyte. So
// there are limits, of one image and of all that are in memory at once, whatever
// the number of decoders is. Those of one image belong to the job: where one
// member refused an image that another takes, they would train on different
// samples. The others only make a decoder wait.

// budget is what the decoders of a data set may take.
type budget struct {
	pixels int   // of an image
	bytes  int64 // of an image file
	files  *semaphore.Weighted
	images *semaphore.Weighted
	memory int64 // of images, bytes
}

// bytesPerPixel is what decoding takes at most for most images: eight bytes of a
// PNG image of 16 bits with alpha, and three of RGB.
const bytesPerPixel = 11

// uncounted is how much a decoder may take without asking: the budgets are about
// large images, and small ones must not wait for each other.
const uncounted = 4 << 20

// maxVisits is how many blocks of 8×8 values the scans of a JPEG file may go over,
// all together. An image of 25 million pixels in ten scans has 5 million.
const maxVisits = 150_000_000

func newBudget(pixels int, bytes int64) *budget {
	memory := max(int64(pixels)*bytesPerPixel, uncounted)
	return &budget{
		pixels: pixels, bytes: bytes, memory: memory,
		files: semaphore.NewWeighted(max(bytes, uncounted)), images: semaphore.NewWeighted(memory),
	}
}

// bounds is the budget of a Set's splits, which can be exchanged.
type bounds struct{ atomic.Pointer[budget] }

func newBounds(o Options) *bounds {
	b := &bounds{}
	b.Store(newBudget(o.MaxPixels, o.MaxBytes))
	return b
}

// Limit sets what an image may be at most, pixels, and its file, bytes. The images
// that are in memory at once, of all decoders together, take no more than one of
// these limits (11 bytes a pixel), nor do their files; those of less than 4 MiB are
// not counted. It is for before the first Decode: images that were refused stay so.
func (s *Set) Limit(pixels int, bytes int64) {
	if s.bounds != nil {
		s.bounds.Store(newBudget(pixels, bytes))
	}
}

// ticket is a part of a budget that a decoder holds.
type ticket struct {
	from *semaphore.Weighted
	n    int64
}

// take waits for n bytes of a budget of size in all. A decoder that waits for an
// image may hold a file, but not the other way round, so that all of them get on.
func (t *ticket) take(from *semaphore.Weighted, n, size int64) {
	t.give()
	if n <= uncounted {
		return
	}
	n = min(n, size)
	_ = from.Acquire(context.Background(), n) // it fails only with its context, or when n is too large
	t.from, t.n = from, n
}

func (t *ticket) give() {
	if t.from != nil {
		t.from.Release(t.n)
		t.from = nil
	}
}

// checkLength refuses a file that is longer than an image may be.
func (b *budget) checkLength(length int64) error {
	if length > b.bytes {
		return fmt.Errorf("a file of %d bytes is too large for an image: the limit is %d (--max-image-bytes)", length, b.bytes)
	}
	return nil
}

// checkSize refuses an image of too many pixels.
func checkSize(w, h, limit int) error {
	if int64(w)*int64(h) > int64(limit) {
		return fmt.Errorf("image of %d×%d pixels: the limit is %d (--max-image-pixels)", w, h, limit)
	}
	return nil
}

// checkScans refuses a JPEG file whose scans would keep a decoder busy.
func checkScans(f turbojpeg.Frame) error {
	if n := f.Visits(); n > maxVisits {
		return fmt.Errorf("the scans of this JPEG file of %d×%d pixels go over %d blocks: the limit is %d", f.W, f.H, n, maxVisits)
	}
	return nil
}

// costOfJPEG is how many bytes decoding takes: the image as RGB, its planes, and
// where there are several scans their coefficients.
func costOfJPEG(f turbojpeg.Frame) int64 {
	values := f.Samples()
	if !f.Huffman {
		values *= 1 + 4
	}
	return int64(f.W) * int64(f.H) * int64(augment.Channels+values+0.5)
}

// costOfPNG is likewise for a PNG file, whose header was read: the image as RGB,
// as it is stored, and once more where it comes in passes; and its chunks in one piece.
func costOfPNG(content []byte) int64 {
	w, h := binary.BigEndian.Uint32(content[16:]), binary.BigEndian.Uint32(content[20:])
	depth, colour, interlaced := content[24], content[25], content[28] != 0
	stored := 1
	if colour == 2 || colour >= 4 { // RGB, grey with alpha, RGB with alpha
		stored = 4
	}
	if depth == 16 {
		stored *= 2
	}
	if interlaced {
		stored *= 2
	}
	return int64(w)*int64(h)*int64(augment.Channels+stored) + int64(len(content))
}

// collect lets go of what Go's decoders have used, before another takes its place:
// the collector by itself lets as much lie about as is in use.
func (t *ticket) collect() {
	if t.from != nil && t.n >= collected {
		runtime.GC()
	}
}

// collected is from which size on that is worth its time, which is short beside
// that of decoding.
const collected = 64 << 20
