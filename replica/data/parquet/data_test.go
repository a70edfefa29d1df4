package parquet_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"mochi/replica/data"
)

type photo struct {
	Image *struct {
		Bytes []byte `parquet:"bytes,plain"`
		Path  string `parquet:"path,plain"`
	} `parquet:"image,optional"`
	Label *int64 `parquet:"label,optional"`
}

func picture(t *testing.T, seed int) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, 9+seed, 7))
	for y := range 7 {
		for x := range 9 + seed {
			m.SetNRGBA(x, y, color.NRGBA{uint8(x*11 + seed*37), uint8(y*7 + seed), uint8(x * y), 255})
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, m)
	if seed%2 == 0 {
		b.Reset()
		err = jpeg.Encode(&b, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *data.Set {
	t.Helper()
	o := data.DefaultOptions()
	o.CountAll, o.Unpack = true, filepath.Join(t.TempDir(), "unpacked")
	set, err := data.OpenWith(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Files as Hugging Face lays them out are the folder of the same images: classes, order,
// pixels; the counts are of rows.
func TestData(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // nothing is left in the user's
	folder, dir := t.TempDir(), t.TempDir()
	names := []string{"cat", "dog"}
	n := 0
	write := func(split, file string, rows int) {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[photo](&b, parquet.Compression(&parquet.Snappy), parquet.MaxRowsPerRowGroup(3),
			parquet.KeyValueMetadata("huggingface", `{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}`))
		for i := range rows {
			n++
			p := photo{Image: &struct {
				Bytes []byte `parquet:"bytes,plain"`
				Path  string `parquet:"path,plain"`
			}{picture(t, n), ""}}
			v := int64(i * 2 / rows) // as the folder has them, by class
			p.Label = &v
			put(t, filepath.Join(folder, split, names[v], fmt.Sprintf("%03d.image", n)), p.Image.Bytes)
			if _, err := w.Write([]photo{p}); err != nil {
				t.Fatal(err)
			}
		}
		none := int64(-1) // a row without an image
		if _, err := w.Write([]photo{{Label: &none}}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "data", file), b.Bytes())
	}
	write("train", "train-00000-of-00001.parquet", 8)
	write("val", "validation-00000-of-00001.parquet", 5)
	put(t, filepath.Join(dir, "README.md"), []byte("hello"))
	put(t, filepath.Join(dir, "data", "table.parquet"), []byte("PAR1"))
	want := open(t, folder)
	for _, path := range []string{dir, filepath.Join(dir, "data"), filepath.Join(dir, "data", "train-*.parquet"), filepath.Join(dir, "data", "train-{00000..00000}-of-00001.parquet"), filepath.Join(dir, "data", "train-00000-of-00001.parquet")} {
		set := open(t, path)
		if set.Kind != "parquet" || set.Test == nil || set.Train.Len() != 8 || set.Test.Len() != 5 || set.Info.JPEG == "" {
			t.Fatalf("%s: %s", path, set.Announce)
		}
		for s, pair := range [][2]data.Dataset{{set.Train, want.Train}, {set.Test, want.Test}} {
			for i := range pair[0].Len() {
				a, err := pair[0].Decode(i, data.NewDecoder())
				if err != nil {
					t.Fatal(err)
				}
				b, err := pair[1].Decode(i, data.NewDecoder())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(a.Pix, b.Pix) || a.W != b.W || pair[0].Label(i) != pair[1].Label(i) {
					t.Errorf("%s, split %d: image %d is another one", path, s, i)
				}
			}
		}
		if name := set.Train.(interface{ ClassName(int) string }).ClassName(1); name != "dog" {
			t.Errorf("class 1 is %s", name)
		}
		a := set.Account
		left := 0
		for _, l := range a.Left {
			left += l.Files
		}
		rows, beside := 8+5+2, 0
		if !strings.Contains(path, ".parquet") {
			beside = 1 // table.parquet
		}
		if a.Found != rows+beside || a.Train+a.Test+a.Read+left != a.Found || a.Read != 0 || left != 2+beside {
			t.Errorf("%s: %s\n%s", path, a.Sum(), set.Announce)
		}
	}
	all, err := data.OpenAll([]string{folder, filepath.Join(dir, "data")}, data.Options{MaxPixels: 1 << 20, MaxBytes: 1 << 20, Unpack: t.TempDir()})
	if err != nil || all.Train.Classes() != 2 || all.Train.Len() != 16 {
		t.Errorf("beside a folder: %v", err)
	}
	put(t, filepath.Join(dir, "x", "x.parquet"), []byte("PAR1 and more"))
	if _, err := data.Open(filepath.Join(dir, "x", "x.parquet")); err == nil || !strings.Contains(err.Error(), "no parquet file") {
		t.Errorf("one that is damaged: %v", err)
	}
	if _, err := data.Open(filepath.Join(dir, "x")); err == nil || !strings.Contains(err.Error(), "a parquet table") {
		t.Errorf("a folder of such: %v", err)
	}
}
