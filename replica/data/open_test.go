package data

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpenNamesTheFault(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), []byte("x"))
	write(t, filepath.Join(dir, "texts/a/readme.txt"), []byte("hello"))
	write(t, filepath.Join(dir, "valonly/val/a/1.png"), pngBytes(t, picture(4, 4, 1)))
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"nowhere":          "no such folder",
		"file":             "give the folder",
		"empty":            "it is empty",
		"x.tar.xz":         "unpack it",
		"texts":            "it holds texts (.txt) (a/readme.txt)",
		"valonly":          "no folder train",
		"x-{000..003}.tar": "4 of the 4 files it names do not exist",
	} {
		full := filepath.Join(dir, path)
		_, err := Open(full)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), full) {
			t.Errorf("%s: %v, want the path and %q", path, err, want)
		}
	}
}

func TestFashionMNISTByName(t *testing.T) {
	dir := t.TempDir()
	o := DefaultOptions()
	o.FashionMNIST = filepath.Join(dir, "missing")
	if _, err := OpenWith(FashionMNIST, o); err == nil || !strings.Contains(err.Error(), "apt-get install dataset-fashion-mnist") {
		t.Errorf("missing package: %v", err)
	}
	o.FashionMNIST = dir
	if _, err := OpenWith(FashionMNIST, o); err == nil || !strings.Contains(err.Error(), "apt-get install dataset-fashion-mnist") {
		t.Errorf("empty package folder: %v", err)
	}
	writeIDX(t, dir, true)
	set, err := OpenWith(FashionMNIST, o)
	if err != nil {
		t.Fatal(err)
	}
	if set.Kind != "idx" || !strings.HasPrefix(set.Announce, "Fashion-MNIST: ") {
		t.Errorf("kind %s, announced as %q", set.Kind, set.Announce)
	}
	if set.Info.JPEG != "" {
		t.Errorf("pixels in a file are decoded by %q", set.Info.JPEG)
	}
}

// folderOf makes PNG files and returns their folder.
func folderOf(t *testing.T, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, p := range paths {
		write(t, filepath.Join(dir, p), pngBytes(t, picture(5+i, 4, i)))
	}
	return dir
}

func TestFolderLayouts(t *testing.T) {
	for name, c := range map[string]struct {
		files       []string
		train, test []string // paths below the split's folder
		labels      []int32  // of train
		testLabels  []int32
		classes     int
		announce    string
	}{
		"splits": {
			files: []string{"train/b/2.png", "train/b/10.png", "train/a/x.PNG", "val/b/1.png", "val/a/1.png"},
			train: []string{"a/x.PNG", "b/10.png", "b/2.png"}, labels: []int32{0, 1, 1},
			test: []string{"a/1.png", "b/1.png"}, testLabels: []int32{0, 1}, classes: 2,
			announce: "3 training images, 2 test images, 2 classes",
		},
		"test split": {
			files: []string{"train/a/1.png", "test/a/1.png"}, train: []string{"a/1.png"}, labels: []int32{0},
			test: []string{"a/1.png"}, testLabels: []int32{0}, classes: 1, announce: "the only class is a",
		},
		"train alone": {files: []string{"train/a/1.png", "train/b/1.png", "meta/info.png"}, train: []string{"a/1.png", "b/1.png"}, labels: []int32{0, 1}, classes: 2, announce: "no test images"},
		"classes":     {files: []string{"b/1.png", "a/1.png"}, train: []string{"a/1.png", "b/1.png"}, labels: []int32{0, 1}, classes: 2},
		"a class named train": {
			files: []string{"car/1.png", "train/1.png"}, train: []string{"car/1.png", "train/1.png"}, labels: []int32{0, 1}, classes: 2,
		},
		"class order is not path order": {files: []string{"a/1.png", "a-b/1.png"}, train: []string{"a/1.png", "a-b/1.png"}, labels: []int32{0, 1}, classes: 2},
		"nested":                        {files: []string{"a/x/1.png", "a/0.png", "b/1.png"}, train: []string{"a/0.png", "a/x/1.png", "b/1.png"}, labels: []int32{0, 0, 1}, classes: 2},
		"no classes":                    {files: []string{"2.png", "1.png"}, train: []string{"1.png", "2.png"}, labels: []int32{-1, -1}, announce: "no classes"},
		"loose images":                  {files: []string{"a/1.png", "b/1.png", "0.png"}, train: []string{"a/1.png", "b/1.png"}, labels: []int32{0, 1}, classes: 2, announce: "left out: 1 file, images outside any class folder"},
		"unknown test class": {
			files: []string{"train/a/1.png", "train/c/1.png", "val/b/1.png", "val/c/1.png"}, train: []string{"a/1.png", "c/1.png"}, labels: []int32{0, 1},
			test: []string{"b/1.png", "c/1.png"}, testLabels: []int32{-1, 1}, classes: 2, announce: "class b",
		},
		"no extension": {files: []string{"a/1", "b/2.image"}, train: []string{"a/1", "b/2.image"}, labels: []int32{0, 1}, classes: 2},
		"hidden":       {files: []string{"a/.1.png", ".b/1.png", "c/1.png"}, train: []string{"c/1.png"}, labels: []int32{0}, classes: 1, announce: "1 folder of"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folderOf(t, c.files...)
			set, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if set.Kind != "folder" || set.Info.Train != len(c.train) || set.Info.Classes != c.classes || set.Train.Classes() != c.classes {
				t.Errorf("info %+v of kind %s", set.Info, set.Kind)
			}
			if !strings.Contains(set.Announce, c.announce) {
				t.Errorf("announced as %q, want %q", set.Announce, c.announce)
			}
			compareSplit(t, set.Train, c.train, c.labels)
			if (set.Test == nil) != (c.test == nil) {
				t.Fatalf("test split: %v", set.Test)
			}
			if c.test != nil {
				compareSplit(t, set.Test, c.test, c.testLabels)
			}
		})
	}
}

func compareSplit(t *testing.T, d Dataset, paths []string, labels []int32) {
	t.Helper()
	var gotPaths []string
	var gotLabels []int32
	for i := range d.Len() {
		rel := strings.TrimPrefix(d.Path(i), d.(*folderSplit).dir+"/")
		gotPaths, gotLabels = append(gotPaths, rel), append(gotLabels, d.Label(i))
		if _, err := d.Decode(i, NewDecoder()); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(gotPaths, paths) || !slices.Equal(gotLabels, labels) {
		t.Errorf("got %v %v, want %v %v", gotPaths, gotLabels, paths, labels)
	}
}

// The digest is of names and sizes: the same in another place, another when a
// file is added, renamed or of another size.
func TestFolderDigest(t *testing.T) {
	open := func(dir string) string {
		set, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if set.Info.JPEG == "" {
			t.Error("what decodes image files is not named")
		}
		return set.Info.Digest
	}
	a, b := folderOf(t, "a/1.png", "b/2.png"), folderOf(t, "a/1.png", "b/2.png")
	base := open(a)
	if base != open(b) {
		t.Error("depends on the place")
	}
	write(t, filepath.Join(b, "a/2.png"), []byte("x"))
	longer := open(b)
	write(t, filepath.Join(b, "a/2.png"), []byte("xy"))
	if longer == base || open(b) == longer {
		t.Error("does not see a new file or another size")
	}
	if err := os.Rename(filepath.Join(a, "a/1.png"), filepath.Join(a, "a/3.png")); err != nil {
		t.Fatal(err)
	}
	if open(a) == base {
		t.Error("does not see a new name")
	}
}

func TestFolderLinks(t *testing.T) {
	real, dir := folderOf(t, "a/1.png", "a/2.png"), t.TempDir()
	for from, to := range map[string]string{
		"class":    filepath.Join(real, "a"),
		"b/1.png":  filepath.Join(real, "a/1.png"),
		"b/9.png":  filepath.Join(real, "gone.png"),
		"b/around": dir, // a loop
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, from)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	compareSplit(t, set.Train, []string{"b/1.png", "class/1.png", "class/2.png"}, []int32{0, 1, 1})
	for _, want := range []string{"1 file, links that lead nowhere, such as " + dir + "/b/9.png", "1 file, links to folders, which are followed as classes only, such as " + dir + "/b/around"} {
		if !strings.Contains(set.Announce, want) {
			t.Errorf("announced as %q, want %q", set.Announce, want)
		}
	}
}

func TestLimitKeepsTheShares(t *testing.T) {
	var files []string
	for i := range 12 {
		files = append(files, string("aaabbbbbbccc"[i])+"/"+string(rune('a'+i))+".png")
	}
	set, err := Open(folderOf(t, files...))
	if err != nil {
		t.Fatal(err)
	}
	counts, d := map[int32]int{}, Limit(set.Train, 4)
	for i := range d.Len() {
		counts[d.Label(i)]++
		img, err := d.Decode(i, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		if whole, _ := set.Train.Decode(3*i, NewDecoder()); d.Path(i) != set.Train.Path(3*i) || !slices.Equal(img.Pix, whole.Pix) {
			t.Errorf("sample %d of the subset is not sample %d", i, 3*i)
		}
	}
	if d.Len() != 4 || counts[0] != 1 || counts[1] != 2 || counts[2] != 1 {
		t.Errorf("%d samples, by class %v", d.Len(), counts)
	}
	if Limit(set.Train, 12) != set.Train || Limit(set.Train, 99) != set.Train {
		t.Error("a limit that does not bind changes the data set")
	}
}
