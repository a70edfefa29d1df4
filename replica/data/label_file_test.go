package data

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLabelsIn(t *testing.T) {
	for text, c := range map[string]struct {
		kaggle bool
		want   map[string]string
		bad    int
	}{
		"a.JPEG\tn01\t0\t1\nb.JPEG\tn02":              {false, map[string]string{"a": "n01", "b": "n02"}, 0},
		"\ufeffa.JPEG\tn01\r\n\r\n":                   {false, map[string]string{"a": "n01"}, 0},
		"a.JPEG n01\n\tn02\nc.JPEG\t \n":              {false, map[string]string{}, 3},
		"ImageId,PredictionString\na,n01 1 2 3 4\nb,": {true, map[string]string{"a": "n01"}, 1},
	} {
		of, bad := labelsIn([]byte(text), c.kaggle)
		if !maps.Equal(of, c.want) || bad != c.bad {
			t.Errorf("%q: %v, %d not understood; want %v, %d", text, of, bad, c.want, c.bad)
		}
	}
}

// A file of labels gives the test images the classes of the training images, which do not
// depend on it; what it names besides counts as unknown.
func TestLabelFile(t *testing.T) {
	dir := folderOf(t, "train/n2/images/1.png", "train/n1/images/2.png", "val/images/b.png", "val/images/a.png", "val/images/c.png", "val/images/d.png")
	before, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "val/val_annotations.txt"), []byte("a.png\tn2\nb.png\tn1\nc.png\tn3\n"))
	set := openAll(t, dir)
	if set.Info != before.Info || !slices.Equal(labelsOf(set.Test), []int32{1, 0, -1, -1}) || !slices.Equal(widths(t, set.Test), []int{8, 7, 9, 10}) {
		t.Errorf("labels %v of images %v\n%s", labelsOf(set.Test), widths(t, set.Test), set.Announce)
	}
	for _, want := range []string{"labels of the test images: " + filepath.Join(dir, "val/val_annotations.txt"), "of 4 test images, 1 is not named there and without a class", "class n3"} {
		if !strings.Contains(set.Announce, want) {
			t.Errorf("%q is not said:\n%s", want, set.Announce)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "val/val_annotations.txt"), maxLabelFile+1); err != nil {
		t.Fatal(err)
	}
	if set = openAll(t, dir); !strings.Contains(set.Announce, "is not used") || set.unlabelledTest() == "" {
		t.Errorf("a file that is too large:\n%s", set.Announce)
	}
}

// FuzzLabelsIn: each line of a file of labels gives one label, or is counted, or says
// nothing.
func FuzzLabelsIn(f *testing.F) {
	f.Add([]byte("a.JPEG\tn01\t0\n"), false)
	f.Add([]byte("ImageId,x\na,n01 1\n\n,"), true)
	f.Fuzz(func(t *testing.T, content []byte, kaggle bool) {
		of, bad := labelsIn(content, kaggle)
		for name, class := range of {
			if class == "" || strings.ContainsAny(class, " \t\r\n") {
				t.Fatalf("%q is of class %q", name, class)
			}
		}
		if lines := strings.Count(string(content), "\n") + 1; len(of)+bad > lines {
			t.Fatalf("%d labels and %d bad lines of %d", len(of), bad, lines)
		}
	})
}
