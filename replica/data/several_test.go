package data

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// classesOfAll are the names of the classes of all samples, "" for none.
func classesOfAll(d Dataset) (names []string) {
	for i := range d.Len() {
		name := ""
		if l := d.Label(i); l >= 0 {
			name = className(d, int(l))
		}
		names = append(names, name)
	}
	return names
}

// Sources of all kinds together are their samples in the order given, with the pixels
// and classes that each has alone; the counts are the sums.
func TestSeveralSources(t *testing.T) {
	base := t.TempDir()
	folder, list, shards, idx, cifar := filepath.Join(base, "folder"), filepath.Join(base, "list", "train.csv"), filepath.Join(base, "tars"), filepath.Join(base, "idx"), filepath.Join(base, "cifar")
	for i, name := range []string{"train/dog/1.png", "train/2/2.png", "val/cat/3.png", "val/cow/4.png", "val/dog/5.png", "notes.txt"} {
		write(t, filepath.Join(folder, name), drawing(t, i+1))
	}
	for i, name := range []string{"a.png", "b.png", "c.png"} {
		write(t, filepath.Join(base, "list", name), drawing(t, 10+i))
	}
	write(t, list, []byte("path,label\na.png,cat\nb.png,dog\nc.png,\ngone.png,cat\n"))
	webdataset(t, filepath.Join(shards, "train-%d.tar"), []string{"2", "7"}, []string{"0"})
	webdataset(t, filepath.Join(shards, "val-%d.tar"), []string{"9", "0"})
	writeIDX(t, idx, true)
	write(t, filepath.Join(cifar, "data_batch_1.bin"), cifarRecords(1, 3, 9))
	for _, paths := range [][]string{{folder, list}, {list, folder}, {folder, shards, list}, {idx, folder}, {cifar, shards, idx, list, folder}} {
		set := openAll(t, paths...)
		var names, testNames []string
		var alone []*Set
		files := true
		for _, path := range paths {
			o := DefaultOptions()
			o.CountAll = true
			one, err := OpenWith(path, o)
			if err != nil {
				t.Fatal(err)
			}
			_, encoded := one.Train.(Encoded)
			alone, files = append(alone, one), files && encoded
		}
		at, testAt, found := 0, 0, 0
		for n, one := range alone {
			found += one.Account.Found
			names = append(names, classesOfAll(one.Train)...)
			for i := range one.Train.Len() {
				samePixels(t, set.Train, at, one.Train, i)
				if e, is := set.Train.(Encoded); is && e.Name(at) != fmt.Sprintf("%d/%s", n+1, one.Train.(Encoded).Name(i)) {
					t.Errorf("sample %d is called %s", at, e.Name(at))
				}
				at++
			}
			if one.Test != nil {
				testNames = append(testNames, classesOfAll(one.Test)...)
				for i := range one.Test.Len() {
					samePixels(t, set.Test, testAt, one.Test, i)
					testAt++
				}
			}
		}
		if _, encoded := set.Train.(Encoded); encoded != files || (set.Info.JPEG != "") != (slices.Contains(paths, folder) || slices.Contains(paths, list)) {
			t.Errorf("%v: files %v, decoded by %q", paths, encoded, set.Info.JPEG)
		}
		if at != set.Train.Len() || testAt != set.Test.Len() || found != set.Account.Found || set.Info.Train != at {
			t.Errorf("%v: %d training and %d test images of %d found, want %d, %d of %d", paths, set.Train.Len(), set.Test.Len(), set.Account.Found, at, testAt, found)
		}
		if got := classesOfAll(set.Train); !slices.Equal(got, names) {
			t.Errorf("%v: classes %v, want %v", paths, got, names)
		}
		for i, got := range classesOfAll(set.Test) { // the sources may know more classes of each other's
			if got != testNames[i] && (testNames[i] != "" || !slices.Contains(names, got)) {
				t.Errorf("%v: test image %d is of %q, want %q", paths, i, got, testNames[i])
			}
		}
	}
	// A class that only another source trains on is known; one that none has is said once.
	set := openAll(t, folder, list)
	if got := classesOfAll(set.Test); !slices.Equal(got, []string{"cat", "", "dog"}) || strings.Contains(set.Announce, "class cat of") || !strings.Contains(set.Announce, "class cow of the test split of "+folder) {
		t.Errorf("%v\n%s", got, set.Announce)
	}
	set = openAll(t, shards, folder)
	if !strings.Contains(set.Announce, "class 9 of the test split of "+shards) || className(set.Train, 0) != "0" {
		t.Error(set.Announce)
	}
}

func samePixels(t *testing.T, a Dataset, i int, b Dataset, j int) {
	t.Helper()
	x, err := a.Decode(i, NewDecoder())
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Decode(j, NewDecoder())
	if err != nil {
		t.Fatal(err)
	}
	if x.W != y.W || x.H != y.H || !slices.Equal(x.Pix, y.Pix) || a.Path(i) != b.Path(j) {
		t.Errorf("sample %d, %s, is not sample %d, %s", i, a.Path(i), j, b.Path(j))
	}
	if e, at, ok := File(a, i); ok {
		content, err := e.Content(at, NewDecoder())
		if want, err2 := b.(Encoded).Content(j, NewDecoder()); err != nil || err2 != nil || !slices.Equal(content, want) {
			t.Errorf("sample %d: another file, %v", i, err)
		}
	} else if _, is := b.(Encoded); is {
		t.Errorf("sample %d of %s is no file any more", i, a.Path(i))
	}
}

// The digest is of the sources and their order; a source given twice, by whatever path,
// is refused; limits hold for all.
func TestSeveralAreTold(t *testing.T) {
	a, b := folderOf(t, "x/1.png", "y/2.png"), folderOf(t, "x/3.png", "z/4.png")
	ab, ba := openAll(t, a, b), openAll(t, b, a)
	alone, err := Open(a)
	if err != nil {
		t.Fatal(err)
	}
	one, err := OpenAll([]string{a}, DefaultOptions())
	if err != nil || one.Info != alone.Info {
		t.Errorf("one source: %+v, %v", one.Info, err)
	}
	if ab.Info.Digest == ba.Info.Digest || ab.Info.Digest == alone.Info.Digest || ab.Info.Classes != 3 || ab.Kind != "several" {
		t.Errorf("%+v, %+v", ab.Info, ba.Info)
	}
	if again := openAll(t, a, b); again.Info != ab.Info {
		t.Error("another digest the next time")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	for _, twice := range []string{a, a + "/", filepath.Join(a, "x", ".."), link} {
		if _, err := OpenAll([]string{a, b, twice}, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "given twice") {
			t.Errorf("%s twice: %v", twice, err)
		}
	}
	if _, err := OpenAll([]string{a, filepath.Join(a, "none")}, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "no such folder") {
		t.Errorf("a source that is not there: %v", err)
	}
	ab.Limit(3, 1<<20)
	for i := range ab.Train.Len() {
		if _, err := ab.Train.Decode(i, NewDecoder()); err == nil {
			t.Errorf("sample %d is above the limit", i)
		}
	}
	other := openAll(t, a, folderOf(t, "q/1.png", "r/2.png"))
	if !strings.Contains(other.Announce, "none of the classes of "+a) {
		t.Error(other.Announce)
	}
	cut, err := ab.Select(ClassList{"x", "z"})
	if err != nil || !slices.Equal(classesOfAll(cut.Train), []string{"x", "x", "z"}) {
		t.Errorf("%v", err)
	}
}

// Shards whose .json names the classes and folders have their classes in common.
func TestSeveralByName(t *testing.T) {
	dir := folderOf(t, "train/cat/1.png", "train/dog/2.png")
	shard := filepath.Join(t.TempDir(), "x-train.tar")
	val := filepath.Join(filepath.Dir(shard), "x-val.tar")
	write(t, shard, tarBytes(t, member{"1.png", drawing(t, 1)}, member{"1.json", []byte(`{"label": 5, "class_name": "dog"}`)}))
	write(t, val, tarBytes(t, member{"1.png", drawing(t, 1)}, member{"1.json", []byte(`{"label": 4, "class_name": "cat"}`)}))
	set := openAll(t, dir, shard)
	if got := classesOfAll(set.Train); !slices.Equal(got, []string{"cat", "dog", "dog"}) || set.Train.Classes() != 2 {
		t.Errorf("%v of %d", got, set.Train.Classes())
	}
	if got := classesOfAll(set.Test); !slices.Equal(got, []string{"cat"}) {
		t.Errorf("tests %v", got)
	}
}

// Where each sample comes from, also where a part has none.
func TestPartOfASample(t *testing.T) {
	u := &united{first: []int{0, 2, 2, 5}}
	for i, want := range []int{0, 0, 2, 2, 2, 3, 3} {
		if got := u.part(i); got != want {
			t.Errorf("sample %d is of part %d, want %d", i, got, want)
		}
	}
}

// Classes are sorted by one rule, whatever order they come in.
func TestSortedClasses(t *testing.T) {
	for _, want := range [][]string{{}, {"9", "10"}, {"01", "1", "2"}, {"10", "9", "cat"}, {"", "1"}} {
		for range 20 {
			got := slices.Clone(want)
			rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
			if sortClasses(got); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}
