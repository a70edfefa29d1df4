package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The neighbours of an image are those whose features, as mochi embed writes them, have
// the largest cosine with its own; the sheet shows it and them.
func TestNeighbours(t *testing.T) {
	data := photos(t, 5, "train/cat", "train/dog", "val/cat", "val/dog")
	broken := filepath.Join(data, "train", "cat", "broken.jpg")
	put(t, broken, []byte{0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0})
	dir := t.TempDir()
	features, page, sheet := filepath.Join(dir, "f.npy"), filepath.Join(dir, "n.html"), filepath.Join(dir, "n.png")
	args := []string{"embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data}
	mochi(t, append(args, "--out", features)...)
	list := strings.Split(strings.TrimSpace(string(contents(t, filepath.Join(dir, "f.csv")))), "\n")[1:]
	blob := contents(t, features)[128:]
	row := func(i int) (v []float64) {
		for j := range 64 {
			v = append(v, float64(math.Float32frombits(binary.LittleEndian.Uint32(blob[4*(64*i+j):]))))
		}
		return v
	}
	dot := func(a, b []float64) (sum float64) {
		for i := range a {
			sum += a[i] * b[i]
		}
		return sum
	}
	image := filepath.Join(data, "val", "dog", "b.png")
	at := slices.IndexFunc(list, func(s string) bool { return strings.HasSuffix(s, image) })
	var want []float64
	for i := range list {
		a, b := row(at), row(i)
		want = append(want, dot(a, b)/math.Sqrt(dot(a, a)*dot(b, b)))
	}
	slices.SortFunc(want, func(a, b float64) int { return int(math.Copysign(1, b-a)) })

	var got struct {
		Of      string
		LeftOut int `json:"left_out"`
		Near    []struct {
			Path, Split, Class string
			Cosine             float64
		} `json:"neighbours"`
	}
	if err := json.Unmarshal([]byte(mochi(t, append(args, "--neighbours", image, "--out", page, "--count", "7", "--json")...)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Near) != 7 || got.LeftOut != 1 || got.Of != image {
		t.Fatalf("%+v", got)
	}
	html := string(contents(t, page))
	for i, n := range got.Near {
		if math.Abs(n.Cosine-want[i]) > 1e-6 {
			t.Errorf("neighbour %d has the cosine %v, want %v", i, n.Cosine, want[i])
		}
		if split := map[bool]string{true: "train", false: "test"}[strings.Contains(n.Path, "/train/")]; n.Split != split || n.Class != filepath.Base(filepath.Dir(n.Path)) {
			t.Errorf("neighbour %d: %+v", i, n)
		}
		if !strings.Contains(html, filepath.Base(n.Path)) {
			t.Errorf("%s is not on the page", n.Path)
		}
	}
	if strings.Count(html, "data:image/png;base64,") != 8 {
		t.Error("the page does not have 8 pictures")
	}
	mochi(t, append(args, "--neighbours", image, "--out", sheet)...)
	img, err := png.Decode(bytes.NewReader(contents(t, sheet)))
	if err != nil || img.Bounds().Dx() != 6*136+8 || img.Bounds().Dy() != 3*136+8 { // it and 17 of the 20
		t.Errorf("a sheet of %v, %v", img.Bounds(), err)
	}

	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, 1, append(args, "--neighbours", broken, "--out", page), "broken.jpg")
	refused(t, 2, append(args, "--neighbours", filepath.Join(dir, "none.jpg"), "--out", features, "--count", "0"), "neighbours:", "out:", "count:")
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("%v in the folder, %v", after, err)
	}
}
