package data

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/png"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mochi/replica/data/turbojpeg"
)

// manyScans is a progressive JPEG file of one component: a frame of w×h pixels and
// empty scans of all its blocks.
func manyScans(w, h, scans int) []byte {
	b := []byte{0xff, 0xd8, 0xff, 0xc2, 0, 11, 8}
	b = binary.BigEndian.AppendUint16(b, uint16(h))
	b = binary.BigEndian.AppendUint16(b, uint16(w))
	b = append(b, 1, 7, 0x11, 0)
	for range scans {
		b = append(b, 0xff, 0xda, 0, 8, 1, 7, 0, 1, 63, 0, 0x00, 0xff, 0x00, 0xff, 0xd0, 3)
	}
	return append(b, 0xff, 0xd9)
}

// Scans are counted with the blocks that each goes over, whatever lies between
// them; where blocks cost bits, one pass is all there is.
func TestVisitsOfScans(t *testing.T) {
	for scans := range 4 {
		f, err := turbojpeg.ReadFrame(manyScans(17, 8, scans), nil)
		if err != nil || f.Visits() != int64(3*scans) {
			t.Errorf("%d scans of 3 blocks: %d visits, %v", scans, f.Visits(), err)
		}
	}
	f, err := turbojpeg.ReadFrame(jpegBytes(t, picture(64, 32, 1)), nil)
	if err != nil || f.Visits() != 32+8+8 || f.Samples() != 1.5 || !f.Huffman {
		t.Errorf("baseline 4:2:0: %+v, %d visits, %v", f, f.Visits(), err)
	}
}

// Each limit is named, with the file; what is just inside is let through.
func TestLimitsAreNamed(t *testing.T) {
	photo := jpegBytes(t, picture(60, 40, 1))
	for name, c := range map[string]struct {
		content []byte
		pixels  int
		bytes   int64
		want    string
	}{
		"pixels":        {photo, 60*40 - 1, 1 << 20, "image of 60×40 pixels: the limit is 2399 (--max-image-pixels)"},
		"as many":       {photo, 60 * 40, 1 << 20, ""},
		"bytes":         {photo, 2400, int64(len(photo)) - 1, "(--max-image-bytes)"},
		"as long":       {photo, 2400, int64(len(photo)), ""},
		"scans":         {manyScans(8000, 8000, 151), 1 << 30, 1 << 20, "go over 151000000 blocks: the limit is 150000000"},
		"scans, inside": {manyScans(8000, 8000, 150), 10, 1 << 20, "8000×8000 pixels: the limit is 10"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "x.jpg"), c.content)
		o := DefaultOptions()
		set, err := OpenWith(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		set.Limit(c.pixels, c.bytes)
		_, err = set.Train.Decode(0, NewDecoder())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "x.jpg")):
			t.Errorf("%s: %v, want the file and %q", name, err, c.want)
		}
	}
}

// All decoders together take no more than the budget, one of the limit's size
// included, and every one of them gets its turn.
func TestDecodersShareABudget(t *testing.T) {
	b := newBudget(1<<20, 8<<20) // 11 MiB of images
	var holds, most atomic.Int64
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 1))
			var file, decoding ticket
			for range 200 {
				file.take(b.files, rng.Int64N(9<<20), b.bytes)
				decoding.take(b.images, rng.Int64N(24<<20), b.memory)
				now := holds.Add(decoding.held())
				for {
					old := most.Load()
					if now <= old || most.CompareAndSwap(old, now) {
						break
					}
				}
				holds.Add(-decoding.held())
				decoding.give()
				if rng.IntN(2) == 0 {
					file.give()
				}
			}
			file.give()
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the decoders wait for each other")
	}
	if most.Load() > b.memory || most.Load() < b.memory/2 {
		t.Errorf("at most %d bytes were held at once, of %d", most.Load(), b.memory)
	}
}

func (t *ticket) held() int64 {
	if t.from == nil {
		return 0
	}
	return t.n
}

// What decoding is said to cost is what images are made of.
func TestCostOfPNG(t *testing.T) {
	rect := image.Rect(0, 0, 10, 10)
	for _, c := range []struct {
		m    image.Image
		want int64
	}{
		{image.NewGray(rect), 400}, {image.NewGray16(rect), 500}, {image.NewNRGBA(rect), 700}, {image.NewNRGBA64(rect), 1100},
	} {
		var b bytes.Buffer
		if err := png.Encode(&b, c.m); err != nil {
			t.Fatal(err)
		}
		content := b.Bytes()
		if c.want == 1100 || c.want == 700 {
			content[25] = 6 // the encoder leaves alpha out where there is none
		}
		if got, want := costOfPNG(content), c.want+int64(len(content)); got != want {
			t.Errorf("%T: %d bytes, want %d", c.m, got, want)
		}
		head, f, err := readHeader(b.Bytes(), nil)
		if err != nil || head.check(f, 99) == nil || head.check(f, 100) != nil || head.cost(f, b.Bytes()) < 400 {
			t.Errorf("%T of 100 pixels: %+v, %v", c.m, head, err)
		}
	}
}

// A decoder whose image is large does not keep it.
func TestTrim(t *testing.T) {
	d := NewDecoder()
	d.Image(kept, 1)
	d.Content(kept + 1)
	d.rows = make([]byte, uncounted+1)
	d.Trim()
	if cap(d.image.Pix)+cap(d.content)+cap(d.rows) != 0 {
		t.Error("it is kept")
	}
	small := d.Image(10, 10)
	d.Trim()
	if again := d.Image(10, 10); &again.Pix[0] != &small.Pix[0] {
		t.Error("a small one is not")
	}
}
