package data

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeIDX writes pairs of 6 training and 2 test images of 3×2 pixels.
func writeIDX(t *testing.T, dir string, compress bool) {
	t.Helper()
	for name, content := range map[string][]byte{
		"train-images-idx3-ubyte": idxBytes([]int{6, 2, 3}, ramp(36, 0)),
		"train-labels-idx1-ubyte": idxBytes([]int{6}, []uint8{0, 1, 2, 0, 1, 2}),
		"t10k-images-idx3-ubyte":  idxBytes([]int{2, 2, 3}, ramp(12, 100)),
		"t10k-labels-idx1-ubyte":  idxBytes([]int{2}, []uint8{2, 3}),
	} {
		if compress {
			name, content = name+".gz", gzipped(t, content)
		}
		write(t, filepath.Join(dir, name), content)
	}
}

func TestIDX(t *testing.T) {
	digests := map[string]bool{}
	for _, compress := range []bool{false, true} {
		dir := t.TempDir()
		writeIDX(t, dir, compress)
		set, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if set.Kind != "idx" || set.Train.Len() != 6 || set.Test.Len() != 2 || set.Info.Classes != 3 || set.Info.Train != 6 {
			t.Errorf("got %+v", set)
		}
		if want := "6 training images of 3×2 pixels, 2 test images, 3 classes"; !strings.Contains(set.Announce, want) {
			t.Errorf("announced as %q, want %q", set.Announce, want)
		}
		img, err := set.Train.Decode(1, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		if want := []uint8{6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11, 11}; img.W != 3 || img.H != 2 || !slices.Equal(img.Pix, want) {
			t.Errorf("image 1 is %+v", img)
		}
		if set.Train.Label(5) != 2 || set.Test.Label(0) != 2 || set.Test.Label(1) != -1 {
			t.Errorf("labels %d, %d, %d", set.Train.Label(5), set.Test.Label(0), set.Test.Label(1))
		}
		if p := set.Train.Path(1); !strings.Contains(p, "train-images") || !strings.HasSuffix(p, "image 1") {
			t.Errorf("path %q", p)
		}
		digests[set.Info.Digest] = true
	}
	if len(digests) != 1 {
		t.Error("the digest depends on compression or place")
	}
	dir := t.TempDir()
	writeIDX(t, dir, false)
	write(t, filepath.Join(dir, "train-labels-idx1-ubyte"), idxBytes([]int{6}, []uint8{0, 1, 2, 0, 1, 1}))
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if digests[set.Info.Digest] {
		t.Error("the digest does not see a label")
	}
}

func TestIDXNamesTheFault(t *testing.T) {
	const images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
	good := idxBytes([]int{6, 2, 3}, ramp(36, 0))
	for name, c := range map[string]struct {
		file    string
		content []byte // nil: the file is missing
		want    string
	}{
		"wrong magic":       {images, append([]byte("PNG."), good[4:]...), "not an IDX file"},
		"floats":            {images, append([]byte{0, 0, 13, 3}, good[4:]...), "not an IDX file"},
		"wrong dimensions":  {images, idxBytes([]int{6, 6}, ramp(36, 0)), "not an IDX file"},
		"short header":      {images, good[:9], "cut short"},
		"empty":             {images, []byte{}, "cut short"},
		"zero dimension":    {images, idxBytes([]int{0, 2, 3}, nil), "dimension 0 is 0"},
		"huge":              {images, idxBytes([]int{1 << 30, 1 << 30, 1 << 30}, nil), "impossible"},
		"more than there":   {images, idxBytes([]int{1 << 20, 1 << 10, 1 << 9}, ramp(9, 0)), "holds 9 values"},
		"longer":            {images, append(slices.Clone(good), 1), "longer"},
		"truncated gzip":    {images, gzipped(t, good)[:30], "cut short"},
		"gzip bomb":         {images, gzipped(t, idxBytes([]int{1 << 16, 1 << 10, 2}, nil)), "more than 100-fold, the limit"},
		"gzip without body": {images, []byte{0x1f, 0x8b, 8}, "cut short"},
		"labels missing":    {labels, nil, "no labels file"},
		"labels too few":    {labels, idxBytes([]int{5}, ramp(5, 0)), "6 images, but 5 labels"},
		"two candidates":    {"emnist-train-images-idx3-ubyte", good, "keep one"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeIDX(t, dir, false)
			if c.content != nil {
				write(t, filepath.Join(dir, c.file), c.content)
			} else if err := os.Remove(filepath.Join(dir, c.file)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want the path and %q", err, c.want)
			}
		})
	}
}

// What readIDX accepts is exactly what its header says.
func FuzzReadIDX(f *testing.F) {
	f.Add(idxBytes([]int{2, 2, 3}, ramp(12, 0)))
	f.Add(idxBytes([]int{1 << 31, 1, 1}, nil))
	f.Add(idxBytes([]int{3}, ramp(3, 0)))
	f.Add([]byte{0, 0, 8})
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, dimensions := range []int{1, 3} {
			dims, values, err := readIDX(bytes.NewReader(content), dimensions, math.MaxInt64)
			if err != nil {
				continue
			}
			if !bytes.Equal(idxBytes(dims, values), content) {
				t.Fatalf("% x is not what was read: %v, % x", content, dims, values)
			}
		}
	})
}
