package data

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mochi/replica/data/shards"
)

// member is a file of a tar file.
type member struct {
	name    string
	content []byte
}

func tarBytes(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.content)), Mode: 0o644}
		if strings.HasSuffix(m.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// drawing is a PNG image whose width says which one it is.
func drawing(t testing.TB, width int) []byte { return pngBytes(t, picture(width, 3, width)) }

// webdataset makes shards with samples of the given classes in turn; sample n
// of all is n+1 pixels wide.
func webdataset(t testing.TB, pattern string, classes ...[]string) {
	t.Helper()
	n := 0
	for shard, list := range classes {
		var members []member
		for _, class := range list {
			key := fmt.Sprintf("%06d", n)
			n++
			members = append(members, member{key + ".png", drawing(t, n)}, member{key + ".cls", []byte(class)})
		}
		write(t, fmt.Sprintf(pattern, shard), tarBytes(t, members...))
	}
}

// widths are the widths of a split's images, which say which they are.
func widths(t *testing.T, d Dataset) (w []int) {
	t.Helper()
	for i := range d.Len() {
		img, err := d.Decode(i, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		w = append(w, img.W)
	}
	return w
}

func labelsOf(d Dataset) (l []int32) {
	for i := range d.Len() {
		l = append(l, d.Label(i))
	}
	return l
}

func TestShards(t *testing.T) {
	dir := t.TempDir()
	webdataset(t, filepath.Join(dir, "photos-train-%03d.tar"), []string{"2", "0"}, []string{"1\n"}, []string{" 0", ""})
	webdataset(t, filepath.Join(dir, "photos-val-%02d.tar"), []string{"1", "7"})
	digests := map[string]bool{}
	for _, pattern := range []string{"photos-train-{000..002}.tar", "photos-train-{000..}.tar", "photos-train-*.tar", "photos-train-00{0,1,2}.tar", ""} {
		set, err := Open(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if got := widths(t, set.Train); set.Kind != "tar" || !slices.Equal(got, []int{1, 2, 3, 4, 5}) {
			t.Errorf("%s: kind %s, images %v", pattern, set.Kind, got)
		}
		if got := labelsOf(set.Train); !slices.Equal(got, []int32{2, 0, 1, 0, -1}) || set.Train.Classes() != 3 || set.Info.Classes != 3 {
			t.Errorf("%s: labels %v of %d classes", pattern, got, set.Train.Classes())
		}
		if set.Test == nil || !slices.Equal(labelsOf(set.Test), []int32{1, -1}) {
			t.Errorf("%s: test split %v", pattern, set.Test)
		}
		if want := "5 training images in 3 shards, 2 test images, 3 classes"; !strings.Contains(set.Announce, want) {
			t.Errorf("%s: announced as %q", pattern, set.Announce)
		}
		if p := set.Train.Path(2); p != filepath.Join(dir, "photos-train-001.tar")+":000002.png" {
			t.Errorf("path %s", p)
		}
		digests[set.Info.Digest] = true
	}
	if len(digests) != 1 {
		t.Error("the digest depends on how the shards are named")
	}
	one, err := Open(filepath.Join(dir, "photos-train-001.tar"))
	if err != nil || one.Train.Len() != 1 || one.Train.Label(0) != 0 || className(one.Train, 0) != "1" {
		t.Errorf("a single shard: %v, %v", one, err)
	}
}

// The digest sees another label, length, name and order, and not the place.
func TestShardDigest(t *testing.T) {
	digest := func(members ...member) string {
		path := filepath.Join(t.TempDir(), "x.tar")
		write(t, path, tarBytes(t, members...))
		set, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return set.Info.Digest
	}
	a, b := drawing(t, 3), drawing(t, 90)
	base := digest(member{"1.png", a}, member{"1.cls", []byte("0")}, member{"2.png", b})
	if base != digest(member{"2.png", b}, member{"1.cls", []byte("0\n")}, member{"1.png", a}) {
		t.Error("depends on the order of members in a shard")
	}
	for name, other := range map[string]string{
		"label":  digest(member{"1.png", a}, member{"1.cls", []byte("1")}, member{"2.png", b}),
		"length": digest(member{"1.png", b}, member{"1.cls", []byte("0")}, member{"2.png", b}),
		"name":   digest(member{"0.png", a}, member{"0.cls", []byte("0")}, member{"2.png", b}),
		"order":  digest(member{"3.png", a}, member{"3.cls", []byte("0")}, member{"2.png", b}),
	} {
		if other == base {
			t.Errorf("does not see another %s", name)
		}
	}
}

// Tar files as people make them.
func TestShardLayouts(t *testing.T) {
	img := func(n int) []byte { return drawing(t, n) }
	for name, c := range map[string]struct {
		members  []member
		images   []int
		labels   []int32
		tests    []int
		classes  int
		announce string
	}{
		"folders are classes": {members: []member{{"./", nil}, {"./cats/", nil}, {"./cats/b.png", img(2)}, {"./cats/a.png", img(1)}, {"./ants/c.png", img(3)}},
			images: []int{3, 1, 2}, labels: []int32{0, 1, 1}, classes: 2},
		"a folder around": {members: []member{{"photos/10/a.png", img(1)}, {"photos/9/b.png", img(2)}}, images: []int{1, 2}, labels: []int32{0, 1}, classes: 2},
		"splits": {members: []member{{"d/train/x/1.png", img(1)}, {"d/train/y/1.png", img(2)}, {"d/val/y/1.png", img(3)}, {"d/meta/1.png", img(4)}},
			images: []int{1, 2}, labels: []int32{0, 1}, tests: []int{3}, classes: 2},
		"no classes":    {members: []member{{"b.png", img(2)}, {"a.png", img(1)}}, images: []int{1, 2}, labels: []int32{-1, -1}, announce: "no classes"},
		"dots in names": {members: []member{{"my.first.png", img(1)}, {"my.other.png", img(2)}}, images: []int{1, 2}, labels: []int32{-1, -1}},
		"class names":   {members: []member{{"1.png", img(1)}, {"1.cls", []byte("Kühe")}, {"2.png", img(2)}, {"2.cls", []byte("猫")}}, images: []int{1, 2}, labels: []int32{0, 1}, classes: 2},
		"json":          {members: []member{{"1.json", []byte(`{"label": 4, "x": []}`)}, {"1.png", img(1)}, {"2.png", img(2)}, {"2.json", []byte(`{"cls":0`)}}, images: []int{1, 2}, labels: []int32{0, -1}, classes: 1, announce: "1 label is not understood, such as"},
		"cls wins":      {members: []member{{"1.json", []byte(`{"label": 4}`)}, {"1.cls", []byte("2")}, {"1.png", img(1)}}, images: []int{1}, labels: []int32{0}, classes: 1, announce: "the only class is 2"},
		"upper case":    {members: []member{{"A.PNG", img(1)}, {"A.CLS", []byte("1")}}, images: []int{1}, labels: []int32{0}, classes: 1},
		"others":        {members: []member{{"1.png", img(1)}, {"1.txt", []byte("a cat")}, {"readme.txt", nil}, {"._1.png", nil}, {"2.cls", []byte("1")}}, images: []int{1}, labels: []int32{-1}, announce: "2 files, of samples without an image, such as"},
		"again":         {members: []member{{"1.png", img(1)}, {"1.png", img(2)}}, images: []int{2}, labels: []int32{-1}, announce: "members that come again later in their shard"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.tar")
			write(t, path, tarBytes(t, c.members...))
			set, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := widths(t, set.Train); !slices.Equal(got, c.images) {
				t.Errorf("images %v, want %v", got, c.images)
			}
			if got := labelsOf(set.Train); !slices.Equal(got, c.labels) || set.Train.Classes() != c.classes {
				t.Errorf("labels %v of %d classes, want %v of %d", got, set.Train.Classes(), c.labels, c.classes)
			}
			if c.tests != nil && (set.Test == nil || !slices.Equal(widths(t, set.Test), c.tests)) {
				t.Errorf("test split %v", set.Test)
			}
			if !strings.Contains(set.Announce, c.announce) {
				t.Errorf("announced as %q, want %q", set.Announce, c.announce)
			}
		})
	}
}

func TestShardsNameTheFault(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "text.tar"), bytes.Repeat([]byte("no tar file. "), 100))
	write(t, filepath.Join(dir, "zip.tar"), gzipped(t, bytes.Repeat([]byte("no tar file. "), 100)))
	write(t, filepath.Join(dir, "zero.tar"), nil)
	write(t, filepath.Join(dir, "texts.tar"), tarBytes(t, member{"1.txt", nil}))
	write(t, filepath.Join(dir, "s-000.tar"), tarBytes(t, member{"1.png", drawing(t, 2)}))
	for path, want := range map[string]string{
		"none.tar":         "no such file",
		"text.tar":         "not a tar file",
		"zip.tar":          "not a tar file",
		"zero.tar":         "empty",
		"texts.tar":        "holds no JPEG, PNG,",
		"s-{000..003}.tar": "3 of the 4 files it names do not exist, such as " + filepath.Join(dir, "s-001.tar"),
		"s-{000..x}.tar":   "not of the form {000..009}",
		"s-{5..1}.tar":     "not of the form {000..009}",
		"s-{0.tar":         "a { without its }",
		"q-*.tar":          "no such file",
		"q-{00..}.tar":     "no such file",
	} {
		full := filepath.Join(dir, path)
		_, err := Open(full)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want the path and %q", path, err, want)
		}
	}
}

// A shard that is cut short counts up to there: its last image is corrupt, or
// lost with its header; strict refuses it.
func TestTruncatedShard(t *testing.T) {
	dir := t.TempDir()
	whole := tarBytes(t, member{"1.png", drawing(t, 1)}, member{"2.png", drawing(t, 40)}, member{"3.png", drawing(t, 3)})
	write(t, filepath.Join(dir, "a.tar"), whole)
	second := 512 + (len(drawing(t, 1))+511)/512*512 // the second member's header
	for cutAt, c := range map[int]struct{ images, corrupt int }{
		300: {0, 0}, 512: {1, 1}, 512 + 20: {1, 1}, second: {1, 0}, second + 300: {1, 0}, second + 512 + 30: {2, 1},
	} {
		images := c.images
		write(t, filepath.Join(dir, "b.tar"), whole[:cutAt])
		set, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if set.Train.Len() != 3+images || len(set.Faults) != 1 || !errors.Is(set.Faults[0], shards.ErrCut) {
			t.Fatalf("cut at %d: %d images, faults %v", cutAt, set.Train.Len(), set.Faults)
		}
		if !strings.Contains(set.Announce, "b.tar: the shard is cut short") {
			t.Errorf("announced as %q", set.Announce)
		}
		if err := set.Strict(); err == nil || !strings.Contains(err.Error(), "b.tar") {
			t.Errorf("strict: %v", err)
		}
		var reported []string
		l := NewLenient(set.Train, func(e *CorruptError) { reported = append(reported, e.Path) })
		for range 2 {
			for i := range l.Len() {
				if _, err := l.Decode(i, NewDecoder()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(reported) != c.corrupt || c.corrupt > 0 && !strings.HasPrefix(reported[0], filepath.Join(dir, "b.tar")+":") {
			t.Errorf("cut at %d: reported %v", cutAt, reported)
		}
	}
}

// A shard that vanishes, or is exchanged, in the middle of training is one
// report, however many samples it had, and they are replaced by others.
func TestVanishedShard(t *testing.T) {
	dir := t.TempDir()
	n := make([]string, 30)
	webdataset(t, filepath.Join(dir, "x-%d.tar"), n, n, n)
	for name, harm := range map[string]func(path string){
		"gone":    func(path string) { os.Remove(path) },
		"another": func(path string) { write(t, path, []byte("short")) },
	} {
		set, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "x-1.tar")
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		harm(path)
		var reported []string
		l := NewLenient(set.Train, func(e *CorruptError) { reported = append(reported, e.Path) })
		for i := range l.Len() {
			img, err := l.Decode(i, NewDecoder())
			if err != nil {
				t.Fatal(err)
			}
			if vanished := i >= 30 && i < 60; vanished == (img.W == i+1) {
				t.Errorf("%s: sample %d is image %d", name, i, img.W-1)
			}
		}
		if !slices.Equal(reported, []string{path}) || l.CorruptSamples() != 30 {
			t.Errorf("%s: reported %v, %d samples", name, reported, l.CorruptSamples())
		}
		write(t, path, old)
	}
}

// More shards than are kept open, read from many goroutines.
func TestManyShards(t *testing.T) {
	dir := t.TempDir()
	classes := make([][]string, 80)
	for i := range classes {
		classes[i] = []string{"0", "1"}
	}
	webdataset(t, filepath.Join(dir, "x-%03d.tar"), classes...)
	set, err := Open(filepath.Join(dir, "x-{000..079}.tar"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			d := NewDecoder()
			for i := range set.Train.Len() {
				at := (i*37 + g*11) % set.Train.Len()
				if img, err := set.Train.Decode(at, d); err != nil || img.W != at+1 {
					t.Errorf("sample %d: %v, %v", at, img, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Folders of shards: by split, or all together, but not beside images.
func TestShardFolders(t *testing.T) {
	dir := t.TempDir()
	webdataset(t, filepath.Join(dir, "split/train/%02d.tar"), []string{"0"}, []string{"1"})
	webdataset(t, filepath.Join(dir, "split/validation/%02d.tar"), []string{"1"})
	webdataset(t, filepath.Join(dir, "flat/%02d.tar"), []string{"0"}, []string{"1"})
	webdataset(t, filepath.Join(dir, "images/cats-%02d.tar"), []string{"0"})
	write(t, filepath.Join(dir, "images/cats/1.png"), drawing(t, 4))
	for name, want := range map[string]string{
		"split":  "2 training images in 2 shards, 1 test image, 2 classes",
		"flat":   "2 training images in 2 shards, no test images, 2 classes",
		"images": "left out: 1 file, archives and data files",
	} {
		set, err := Open(filepath.Join(dir, name))
		if err != nil || !strings.Contains(set.Announce, want) {
			t.Errorf("%s: %v, %v; want %q", name, set, err, want)
		}
	}
}
