//go:build libdeflate

package data

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// filtered is a PNG file of random pixels with random filters, in chunks of some bytes.
func filtered(t *testing.T, rng *rand.Rand, w, h int, depth, colour byte, level, chunk int) []byte {
	t.Helper()
	p := pngHead{w: w, h: h, depth: depth, colour: colour}
	stride := w * p.bits() / 8
	raw := make([]byte, 0, p.raw())
	for range h {
		raw = append(raw, byte(rng.IntN(5)))
		for range stride {
			raw = append(raw, byte(rng.IntN(256)>>rng.IntN(8)))
		}
	}
	var packed, file bytes.Buffer
	z, err := zlib.NewWriterLevel(&packed, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	out := &chunkWriter{w: &file}
	file.WriteString(pngMagic)
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(w)), uint32(h))
	out.write("IHDR", append(head, depth, colour, 0, 0, 0))
	for part := range slices.Chunk(packed.Bytes(), chunk) {
		out.write("IDAT", part)
	}
	out.write("IEND", nil)
	if out.err != nil {
		t.Fatal(out.err)
	}
	return file.Bytes()
}

// Every kind of pixel, filter and packing, of any size, has the pixels of image/png;
// and whatever byte is changed, the two have one verdict.
func TestFastPNGIsImagePNG(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	fast, careful := NewDecoder(), NewDecoder()
	for n := range 400 {
		depth, colour := byte(8<<(n&1)), []byte{0, 2, 4, 6}[n/2%4]
		file := filtered(t, rng, 1+rng.IntN(40), 1+rng.IntN(12), depth, colour, rng.IntN(10), 1+rng.IntN(300))
		img := fastPNG(fast, file)
		want, err := carefulPNG(careful, file)
		if err != nil || img == nil || img.W != want.W || !slices.Equal(img.Pix, want.Pix) {
			t.Fatalf("%d: depth %d, colour type %d: %v, fast %v, or other pixels", n, depth, colour, err, img != nil)
		}
		for range 5 {
			bad := bytes.Clone(file)
			bad[33+rng.IntN(len(bad)-33)] ^= 1 << rng.IntN(8)
			if n&8 != 0 {
				bad = withChecksums(bad)
			}
			if img := fastPNG(fast, bad); img != nil {
				if want, err := carefulPNG(careful, bad); err != nil || !slices.Equal(img.Pix, want.Pix) {
					t.Fatalf("%d: decoded, where image/png says %v, or other pixels", n, err)
				}
			}
		}
	}
}

// What is not in order, or large, is left to image/png, however little of it is there.
func TestFastPNGLeavesTheRest(t *testing.T) {
	good := pngBytes(t, picture(19, 11, 1))
	if fastPNG(NewDecoder(), good) == nil {
		t.Fatal("a plain file is not decoded")
	}
	end := bytes.Index(good, []byte("IEND")) - 4
	wide := bytes.Clone(good)
	binary.BigEndian.PutUint32(wide[16:], 1<<14)
	binary.BigEndian.PutUint32(wide[20:], 1<<14)
	short := bytes.Clone(good)
	binary.BigEndian.PutUint32(short[20:], 10) // a row less than there is
	for name, content := range map[string][]byte{
		"cut": good[:end-20], "in passes": interlaced(good), "a bomb's size": withChecksums(wide), "more rows": withChecksums(short), "nothing": good[:33],
	} {
		d := NewDecoder()
		if fastPNG(d, content) != nil || cap(d.rows) > 1<<20 {
			t.Errorf("%s: decoded, or %d bytes taken", name, cap(d.rows))
		}
	}
}

// BenchmarkPNG decodes photos, or what is like them. (MOCHI_PHOTOS: a glob of JPEG files.)
func BenchmarkPNG(b *testing.B) {
	var files [][]byte
	add := func(m image.Image) {
		rgb := toRGB(m, NewDecoder())
		out := image.NewRGBA(image.Rect(0, 0, rgb.W, rgb.H))
		for i := range rgb.W * rgb.H {
			copy(out.Pix[4*i:], append(rgb.Pix[3*i:3*i+3:3*i+3], 255))
		}
		files = append(files, pngBytes(b, out))
	}
	if glob := os.Getenv("MOCHI_PHOTOS"); glob != "" {
		for _, path := range strings.Fields(glob) {
			content, err := os.ReadFile(path)
			if err != nil {
				b.Fatal(err)
			}
			m, err := jpeg.Decode(bytes.NewReader(content))
			if err != nil {
				b.Fatal(err)
			}
			add(m)
		}
	} else {
		m, err := jpeg.Decode(bytes.NewReader(jpegBytes(b, picture(500, 375, 1))))
		if err != nil {
			b.Fatal(err)
		}
		add(m)
	}
	pixels := 0
	for _, f := range files {
		h, err := ReadHeader(f)
		if err != nil {
			b.Fatal(err)
		}
		pixels += h.Width * h.Height
	}
	d := NewDecoder()
	for name, decode := range map[string]func([]byte) error{
		"image.png": func(f []byte) error { _, err := png.Decode(bytes.NewReader(f)); return err },
		"mochi":     func(f []byte) error { _, err := d.Decode(f, 1<<30); return err },
	} {
		b.Run(fmt.Sprintf("%s-%d", name, len(files)), func(b *testing.B) {
			b.SetBytes(int64(pixels) * 3)
			began := processorTime(b)
			defer func() {
				b.ReportMetric((processorTime(b)-began).Seconds()*1e3/float64(b.N*len(files)), "cpu-ms/image")
			}()
			for b.Loop() {
				for _, f := range files {
					if err := decode(f); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// processorTime is what this process has had, also where others are at work.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
