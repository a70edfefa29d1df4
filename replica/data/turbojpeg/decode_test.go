//go:build turbojpeg

package turbojpeg

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

type golden struct {
	Name    string
	W, H    int
	Content []byte
	SHA256  string
}

// readGolden reads what tools/jpeg-golden made with PIL.
func readGolden(t testing.TB) []golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g []golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func whole(w, h int) Region { return Region{Height: h, Width: w} }

// Every kind of JPEG has PIL's pixels, bit by bit.
func TestPixelsEqualPIL(t *testing.T) {
	for _, g := range readGolden(t) {
		w, h, err := Size(g.Content)
		if err != nil || w != g.W || h != g.H {
			t.Errorf("%s: size %d×%d, %v, want %d×%d", g.Name, w, h, err, g.W, g.H)
			continue
		}
		pix := make([]uint8, w*h*3)
		if _, err := Decode(g.Content, w, h, whole(w, h), pix); err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		if sum := sha256.Sum256(pix); hex.EncodeToString(sum[:]) != g.SHA256 {
			t.Errorf("%s: pixels differ from PIL's", g.Name)
		}
	}
}

// A region's pixels are those of the whole image.
func TestRegionEqualsWhole(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, g := range readGolden(t) {
		full := make([]uint8, g.W*g.H*3)
		if _, err := Decode(g.Content, g.W, g.H, whole(g.W, g.H), full); err != nil {
			t.Fatal(err)
		}
		part := make([]uint8, len(full))
		for range 200 {
			r := Region{Height: 1 + rng.IntN(g.H), Width: 1 + rng.IntN(g.W)}
			r.Top, r.Left = rng.IntN(g.H-r.Height+1), rng.IntN(g.W-r.Width+1)
			clear(part)
			if _, err := Decode(g.Content, g.W, g.H, r, part); err != nil {
				t.Fatalf("%s, %+v: %v", g.Name, r, err)
			}
			for y := r.Top; y < r.Top+r.Height; y++ {
				from, to := (y*g.W+r.Left)*3, (y*g.W+r.Left+r.Width)*3
				if !bytes.Equal(part[from:to], full[from:to]) {
					t.Fatalf("%s, %+v: row %d differs", g.Name, r, y)
				}
			}
		}
	}
}

// Damage is reported whatever region is wanted, below and above the damage. An end
// mark that is missing is none where all scans are there.
func TestDamageIsAnErrorForEveryRegion(t *testing.T) {
	for _, g := range readGolden(t) {
		n := len(g.Content)
		full, pix := make([]uint8, g.W*g.H*3), make([]uint8, g.W*g.H*3)
		for _, r := range []Region{whole(g.W, g.H), {0, 0, 1, 1}, {g.H - 1, g.W - 1, 1, 1}} {
			for name, content := range map[string][]byte{"half": g.Content[:n/2], "all but a little": g.Content[:n-2-max(8, n/50)]} {
				if _, err := Decode(content, g.W, g.H, r, pix); err == nil {
					t.Errorf("%s, %s, %+v: no error", g.Name, name, r)
				}
			}
			for name, content := range map[string][]byte{"no end": g.Content[:n-2], "half an end": g.Content[:n-1], "something else": append(bytes.Clone(g.Content[:n-2]), "\x00trailer"...)} {
				if unended, err := Decode(g.Content, g.W, g.H, r, full); err != nil || unended {
					t.Fatalf("%s: %v, unended: %v", g.Name, err, unended)
				}
				clear(pix)
				unended, err := Decode(content, g.W, g.H, r, pix)
				f, ferr := ReadFrame(content, nil)
				if err != nil || ferr != nil || !unended || !f.Complete() {
					t.Errorf("%s, %s, %+v: %v, unended %v, complete %v", g.Name, name, r, err, unended, f.Complete())
				}
				at := (r.Top*g.W + r.Left) * 3
				if !bytes.Equal(pix[at:at+3*r.Width], full[at:at+3*r.Width]) {
					t.Errorf("%s, %s: other pixels", g.Name, name)
				}
			}
		}
	}
}

// Of a progressive file whose last scans are missing it is not said that it is complete.
func TestScansThatAreMissing(t *testing.T) {
	for _, g := range readGolden(t) {
		if !strings.Contains(g.Name, "progressive") {
			continue
		}
		last := bytes.LastIndex(g.Content, []byte{0xff, 0xda})
		// The scan's Huffman table stands before it.
		if table := bytes.LastIndex(g.Content[:last], []byte{0xff, 0xc4}); table > bytes.LastIndex(g.Content[:last], []byte{0xff, 0xda}) {
			last = table
		}
		f, err := ReadFrame(g.Content[:last], nil)
		if err != nil || f.Complete() {
			t.Errorf("%s without its last scan: complete %v, %v", g.Name, f.Complete(), err)
		}
		if f, err = ReadFrame(g.Content, nil); err != nil || !f.Complete() {
			t.Errorf("%s: complete %v, %v", g.Name, f.Complete(), err)
		}
	}
}

// Tables of one image are not lent to the next, which lacks them.
func TestImagesShareNoTables(t *testing.T) {
	g := readGolden(t)[0]
	pix := make([]uint8, g.W*g.H*3)
	if _, err := Decode(g.Content, g.W, g.H, whole(g.W, g.H), pix); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(g.Content, []byte{0xff, 0xdb})
	length := int(g.Content[at+2])<<8 | int(g.Content[at+3])
	bare := append(bytes.Clone(g.Content[:at]), g.Content[at+2+length:]...)
	if _, err := Decode(bare, g.W, g.H, whole(g.W, g.H), pix); err == nil {
		t.Error("an image without quantisation tables decodes")
	}
}

// Against image/jpeg: within 3 of 255 where colour is stored in full (another
// inverse DCT), else the same picture but for its coloured edges, of which
// this one has many (smooth upsampling).
func TestNearGo(t *testing.T) {
	for _, g := range readGolden(t) {
		m, err := jpeg.Decode(bytes.NewReader(g.Content))
		if err != nil {
			if g.Name != "CMYK, no Adobe" {
				t.Errorf("%s: image/jpeg: %v", g.Name, err)
			}
			continue
		}
		pix := make([]uint8, g.W*g.H*3)
		if _, err := Decode(g.Content, g.W, g.H, whole(g.W, g.H), pix); err != nil {
			t.Fatal(err)
		}
		sum, worst := 0, 0
		for i := range g.W * g.H {
			c := color.RGBAModel.Convert(m.At(i%g.W, i/g.W)).(color.RGBA)
			for j, v := range []uint8{c.R, c.G, c.B} {
				d := int(v) - int(pix[3*i+j])
				sum, worst = sum+max(d, -d), max(worst, d, -d)
			}
		}
		subsampled := strings.Contains(g.Name, "420") || strings.Contains(g.Name, "422")
		if mean := float64(sum) / float64(len(pix)); mean > 8 || !subsampled && worst > 3 {
			t.Errorf("%s: differs by %.2f in the mean, by %d at most", g.Name, mean, worst)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	g := readGolden(t)[0]
	pix := make([]uint8, g.W*g.H*3)
	if n := testing.AllocsPerRun(20, func() {
		w, h, _ := Size(g.Content)
		if _, err := Decode(g.Content, w, h, whole(w, h), pix); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("a decode allocates %v times", n)
	}
}

// Nothing that a file says brings the process down.
func FuzzDecode(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add(g.Content, uint16(3), uint16(5))
	}
	f.Fuzz(func(t *testing.T, content []byte, top, left uint16) {
		w, h, err := Size(content)
		if err != nil || w*h > 1<<20 {
			return
		}
		r := Region{Top: int(top) % h, Left: int(left) % w}
		r.Height, r.Width = h-r.Top, w-r.Left
		pix := make([]uint8, w*h*3)
		_, full := Decode(content, w, h, whole(w, h), pix)
		_, part := Decode(content, w, h, r, pix)
		if (full == nil) != (part == nil) {
			t.Errorf("whole: %v; %+v: %v", full, r, part)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, side := range []int{32, 400} {
		m := image.NewYCbCr(image.Rect(0, 0, side, side), image.YCbCrSubsampleRatio420)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range m.Y {
			m.Y[i] = uint8(i/side + rng.IntN(20))
		}
		var out bytes.Buffer
		if err := jpeg.Encode(&out, m, &jpeg.Options{Quality: 90}); err != nil {
			b.Fatal(err)
		}
		pix := make([]uint8, side*side*3)
		for _, share := range []int{1, 2} {
			r := whole(side/share, side/share)
			b.Run(fmt.Sprintf("%d, region 1 of %d", side, share*share), func(b *testing.B) {
				for b.Loop() {
					if _, err := Decode(out.Bytes(), side, side, r, pix); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
