package parquet

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"mochi/replica/data/unpacked"
)

type picture struct {
	Bytes []byte `parquet:"bytes,plain"`
	Path  string `parquet:"path,plain"`
}

type row struct {
	Image *picture `parquet:"image,optional"`
	Label *int64   `parquet:"label,optional"`
}

// huggingFace is the metadata that the datasets library writes.
func huggingFace(features string) parquet.WriterOption {
	return parquet.KeyValueMetadata("huggingface", `{"info": {"features": {`+features+`}}}`)
}

const catDog = `"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}`

func table[T any](t testing.TB, rows []T, options ...parquet.WriterOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	for from := 0; from < len(rows); from += 7 {
		if _, err := w.Write(rows[from:min(from+7, len(rows))]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil { // a row group
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// members are those of a tar file, name = content.
func members(t testing.TB, content []byte) (all []string) {
	t.Helper()
	for in := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.Name+" = "+string(text))
	}
}

func unpack1(t testing.TB, content []byte) []string {
	t.Helper()
	var out bytes.Buffer
	if err := unpackImages(&out, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return members(t, out.Bytes())
}

// Every row becomes what it is, however the pages are packed and encoded.
func TestUnpack(t *testing.T) {
	var rows []row
	var want []string
	for i := range 40 {
		r := row{}
		label, name := "null", ""
		if i%5 > 0 {
			v := int64(i%4 - 1)
			r.Label, label = &v, fmt.Sprint(v)
			if v >= 0 && v < 2 {
				name = fmt.Sprintf(`,"class_name":%q`, []string{"cat", "dog"}[v])
			}
		}
		file := ""
		if i%7 != 3 {
			r.Image = &picture{Bytes: fmt.Appendf(nil, "\x89PNG %d %s", i, strings.Repeat("x", i)), Path: []string{"", fmt.Sprintf("%d.JPEG", i)}[i%2]}
			ext := map[int]string{0: ".png", 1: ".jpeg"}[i%2]
			want = append(want, fmt.Sprintf("%09d%s = %s", i, ext, r.Image.Bytes))
			if r.Image.Path != "" {
				file = fmt.Sprintf(`,"file":%q`, r.Image.Path)
			}
		}
		want = append(want, fmt.Sprintf(`%09d.json = {"label":%s%s%s}`, i, label, name, file))
		rows = append(rows, r)
	}
	for name, options := range map[string][]parquet.WriterOption{
		"plain":     {},
		"snappy":    {parquet.Compression(&parquet.Snappy)},
		"gzip":      {parquet.Compression(&parquet.Gzip)},
		"zstd":      {parquet.Compression(&parquet.Zstd)},
		"version 1": {parquet.Compression(&parquet.Snappy), parquet.DataPageVersion(1)},
		"version 2": {parquet.Compression(&parquet.Snappy), parquet.DataPageVersion(2)},
		"pages":     {parquet.PageBufferSize(100)},
	} {
		if got := unpack1(t, table(t, rows, append(options, huggingFace(catDog))...)); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Columns are found by their names and by what the metadata say of them.
func TestColumns(t *testing.T) {
	type bare struct {
		Img   []byte `parquet:"img,plain"`
		Fine  int32  `parquet:"fine_label,dict"`
		Other string `parquet:"caption"`
	}
	type texts struct {
		Mask  picture  `parquet:"annotation"`
		Photo picture  `parquet:"photo"`
		Tags  []int64  `parquet:"label,list"`
		Kind  string   `parquet:"kind,dict"`
		More  *float64 `parquet:"more,optional"`
	}
	type none struct {
		Text  string `parquet:"text"`
		Label int64  `parquet:"label"`
	}
	if got := unpack1(t, table(t, []bare{{[]byte("a"), 3, "x"}, {[]byte("b"), 3, "y"}})); len(got) != 4 || got[0] != "000000000.jpg = a" || got[3] != `000000001.json = {"label":3}` {
		t.Errorf("%q", got)
	}
	two := []texts{{Mask: picture{Bytes: []byte("m")}, Photo: picture{Bytes: []byte("p"), Path: "p.webp"}, Tags: []int64{1, 2}, Kind: "cat"}}
	said := huggingFace(`"photo": {"_type": "Image"}, "annotation": {"_type": "Image"}, "label": {"feature": {}, "_type": "Sequence"}, "kind": {"_type": "ClassLabel"}`)
	if got := unpack1(t, table(t, two, said)); len(got) != 2 || got[0] != "000000000.webp = p" || got[1] != `000000000.json = {"label":"cat","file":"p.webp"}` {
		t.Errorf("%q", got)
	}
	if got := unpack1(t, table(t, two)); len(got) != 2 || got[0] != "000000000.webp = p" || got[1] != `000000000.json = {"label":null,"file":"p.webp"}` {
		t.Errorf("%q", got)
	}
	content := table(t, []none{{"x", 1}})
	if err := unpackImages(io.Discard, bytes.NewReader(content), int64(len(content))); err == nil || !strings.Contains(err.Error(), "no column of images") {
		t.Errorf("no images: %v", err)
	}
}

// What is damaged or claims too much is the file's fault, by name.
func TestDamaged(t *testing.T) {
	var rows []row
	for i := range 20 {
		v := int64(i)
		rows = append(rows, row{&picture{Bytes: bytes.Repeat([]byte{byte(i)}, 100), Path: "x"}, &v})
	}
	good := table(t, rows, parquet.Compression(&parquet.Snappy))
	footer := func(b []byte, n uint32) []byte {
		b = bytes.Clone(b)
		copy(b[len(b)-8:], []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
		return b
	}
	type repeated struct {
		Image []byte `parquet:"image,dict"`
	}
	type delta struct {
		Image []byte `parquet:"image,delta"`
	}
	bomb := func() []byte {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[repeated](&b)
		if _, err := w.Write(slices.Repeat([]repeated{{make([]byte, 1<<16)}}, 3000)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":            {nil, "cut short"},
		"cut":              {good[:len(good)-9], "cut short"},
		"without pages":    {append(bytes.Clone(good[:4]), good[len(good)/2:]...), ""},
		"a long footer":    {footer(good, 1<<31), "damaged"},
		"a footer of zero": {footer(good, 0), "damaged"},
		"a bomb":           {bomb(), "100 times"},
		"another encoding": {table(t, []delta{{[]byte("a")}}), "which is not read"},
		"another packing":  {table(t, rows, parquet.Compression(&parquet.Brotli)), "which is not read"},
		"a claim of lists": {append(append([]byte("PAR1"), 0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 7, 0), 8, 0, 0, 0, 'P', 'A', 'R', '1'), "damaged"},
	} {
		err := unpackImages(io.Discard, bytes.NewReader(c.content), int64(len(c.content)))
		var damaged *unpacked.DamagedError
		if !errors.As(err, &damaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if !Is(good) || !HasImages(path) || Is(nil) || HasImages(path+"x") {
		t.Error("it is not recognised")
	}
	if err := os.WriteFile(path, good[:len(good)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if !Is(good[:len(good)-1]) || HasImages(path) {
		t.Error("one that is cut has images")
	}
}

// Each byte of a file changed leaves something that is read or refused, never more than
// the file may hold.
func TestEveryByteChanged(t *testing.T) {
	v := int64(1)
	good := table(t, []row{{&picture{[]byte("\x89PNG 1"), "a.png"}, &v}, {nil, nil}, {&picture{[]byte("\x89PNG 2"), "b.png"}, &v}}, parquet.Compression(&parquet.Snappy), huggingFace(catDog))
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= []byte{1, 0x80, 0xff}[i%3]
		limited(t, b)
	}
}

// limited unpacks whatever a file holds.
func limited(t *testing.T, b []byte) {
	t.Helper()
	var out counting
	err := unpackImages(&out, bytes.NewReader(b), int64(len(b)))
	if most := 2*(max(pageAnyway, int64(len(b))*maxRatio)) + 3*512*maxRows; int64(out) > most {
		t.Fatalf("%d bytes of %d, %v", out, len(b), err)
	}
	var damaged *unpacked.DamagedError
	if err != nil && !errors.As(err, &damaged) {
		t.Fatalf("not the file's fault: %v", err)
	}
}

type counting int64

func (c *counting) Write(p []byte) (int, error) {
	*c += counting(len(p))
	return len(p), nil
}

// FuzzUnpack: whatever a file holds, it is unpacked or refused.
func FuzzUnpack(f *testing.F) {
	v := int64(1)
	rows := []row{{&picture{[]byte("\x89PNG 1"), "a.png"}, &v}, {nil, nil}}
	f.Add(table(f, rows, huggingFace(catDog)))
	f.Add(table(f, rows, parquet.Compression(&parquet.Snappy), parquet.DataPageVersion(1)))
	f.Add(table(f, rows, parquet.Compression(&parquet.Zstd)))
	f.Fuzz(func(t *testing.T, content []byte) { limited(t, content) })
}
