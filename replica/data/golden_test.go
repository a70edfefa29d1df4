package data

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"mochi/replica/augment"
)

// What tools/image-golden made: files, and the pixels that PIL has of them.
type golden struct {
	Name    string
	W, H    int
	Content []byte
	SHA256  string
}

func readGolden(t testing.TB) (list []golden) {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil || len(list) == 0 {
		t.Fatal(err)
	}
	return list
}

// Every format has PIL's pixels, bit by bit, and PIL's orientation.
func TestPixelsEqualPIL(t *testing.T) {
	for _, g := range readGolden(t) {
		d := NewDecoder()
		head, err := ReadHeader(g.Content)
		if err != nil || !strings.HasPrefix(g.Name, head.Format) {
			t.Errorf("%s: header %+v, %v", g.Name, head, err)
			continue
		}
		if turned := strings.Contains(g.Name, "turned"); turned != (head.Orientation > 1) {
			t.Errorf("%s: orientation %d", g.Name, head.Orientation)
		}
		var seen [2]int
		d.Region = func(w, h int) augment.Rect { seen = [2]int{w, h}; return augment.Rect{Height: h, Width: w} }
		img, err := d.Decode(g.Content, 1<<16)
		if err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		if img.W != g.W || img.H != g.H || seen != [2]int{g.W, g.H} {
			t.Errorf("%s: %d×%d, announced as %v, want %d×%d", g.Name, img.W, img.H, seen, g.W, g.H)
			continue
		}
		if sum := sha256.Sum256(img.Pix); hex.EncodeToString(sum[:]) != g.SHA256 {
			t.Errorf("%s: pixels differ from PIL's", g.Name)
		}
	}
}

// Whatever is cut off a file, header and decoder agree, and nothing panics.
func TestCutFilesAreOneVerdict(t *testing.T) {
	d := NewDecoder()
	for _, g := range readGolden(t) {
		for n := 0; n < len(g.Content); n += 1 + len(g.Content)/40 {
			_, herr := ReadHeader(g.Content[:n])
			_, err := d.Decode(g.Content[:n], 1<<16)
			if herr != nil && (err == nil || err.Error() != herr.Error()) {
				t.Errorf("%s, %d bytes: header %v, decoder %v", g.Name, n, herr, err)
			}
		}
	}
}
