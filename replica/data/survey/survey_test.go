package survey

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mochi/replica/data"
)

func encoded(t *testing.T, w, h int, shade uint8, grey, asPNG bool) []byte {
	t.Helper()
	var m interface {
		image.Image
		Set(x, y int, c color.Color)
	} = image.NewRGBA(image.Rect(0, 0, w, h))
	if grey {
		m = image.NewGray(image.Rect(0, 0, w, h))
	}
	for i := range w * h {
		m.Set(i%w, i/w, color.RGBA{shade, uint8(i), 3, 255})
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, m, nil)
	if asPNG {
		b.Reset()
		err = png.Encode(&b, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// put writes files below a folder.
func put(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSurvey(t *testing.T) {
	dir := t.TempDir()
	twin := encoded(t, 100, 50, 7, false, false)
	files := map[string][]byte{
		"train/a/1.jpg": twin,
		"train/a/2.jpg": encoded(t, 300, 260, 8, false, false),
		"train/b/3.png": encoded(t, 40, 70, 9, true, true),
		"train/b/4.jpg": twin,
		"train/b/5.jpg": twin[:len(twin)-60],
		"train/b/6.jpg": {},
		"val/b/7.jpg":   twin,
		"val/b/8.png":   encoded(t, 33, 33, 1, false, true),
		"val/x/9.png":   encoded(t, 31, 400, 2, false, true),
	}
	put(t, dir, files)
	set, err := data.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, workers := range []int{1, 5} {
		last := 0
		r, err := Run(t.Context(), set, Options{Workers: workers, Progress: func(done, total int) {
			if last = max(last, done); total != 9 {
				t.Errorf("%d of %d", done, total)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if last != 9 || r.Train.Images != 6 || r.Test.Images != 3 || r.Test.Unlabeled != 1 || r.Classes != 2 {
			t.Errorf("progress to %d, %+v, %+v", last, r.Train, r.Test)
		}
		if !slices.Equal(r.ByClass, []Class{{"a", 2, 0}, {"b", 4, 2}}) {
			t.Errorf("classes %v", r.ByClass)
		}
		if want := []string{filepath.Join(dir, "train/b/5.jpg"), filepath.Join(dir, "train/b/6.jpg")}; len(r.Corrupt) != 2 || r.Corrupt[0].Path != want[0] || r.Corrupt[1].Path != want[1] {
			t.Errorf("corrupt %v", r.Corrupt)
		}
		if len(r.Duplicates) != 1 || len(r.Duplicates[0].Paths) != 3 || r.Duplicates[0].Paths[2] != filepath.Join(dir, "val/b/7.jpg") || r.Leaked != 1 {
			t.Errorf("duplicates %v, %d leaked", r.Duplicates, r.Leaked)
		}
		if r.Formats[data.JPEG] != 4 || r.Formats[data.PNG] != 3 || r.Colours["grey"] != 1 || r.Colours["RGB"] != 6 {
			t.Errorf("kinds %v %v", r.Formats, r.Colours)
		}
		s := r.Sizes
		if s.MinWidth != 31 || s.MaxWidth != 300 || s.MinHeight != 33 || s.MaxHeight != 400 || s.MedianWidth != 100 {
			t.Errorf("sizes %+v", s)
		}
		if want := []Bin{{16, 31, 1}, {32, 63, 5}, {64, 127, 0}, {128, 255, 0}, {256, 511, 1}}; !slices.Equal(s.ShorterSide, want) {
			t.Errorf("histogram %v, want %v", s.ShorterSide, want)
		}
	}
	quick, err := Run(t.Context(), set, Options{Quick: true})
	if err != nil || len(quick.Corrupt) != 1 || len(quick.Duplicates) != 0 || quick.Complete {
		t.Errorf("quick: %+v, %v", quick, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, set, Options{}); err == nil {
		t.Error("a cancelled survey succeeds")
	}
}
