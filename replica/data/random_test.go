package data

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

var (
	randomSets = flag.Int("data.sets", 200, "random trees and tars of TestRandomData")
	randomSeed = flag.Uint64("data.seed", 1, "of the first of them")
)

// A world is a random data set with what is true of it.
type world struct {
	rng   *rand.Rand
	files map[string][]byte // tree or tar members: path → content
	links map[string]string // path → target, as it is written
	order []string          // of members of a tar
	now   int

	train, test map[string]string // image path → class, "" for none
	left        int               // files that are left out
	read        int               // files with labels
}

func (w *world) pick(list ...string) string { return list[w.rng.IntN(len(list))] }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) put(name string, content []byte) {
	w.files[name] = content
	w.order = append(w.order, name)
}

// image is a new picture, unlike all others.
func (w *world) image() []byte {
	w.now++
	return smallPNG(w.now)
}

// smallPNG is a PNG file of 1×1 pixels, its colour a number.
func smallPNG(n int) []byte {
	var b bytes.Buffer
	out := &chunkWriter{w: &b}
	b.WriteString(pngMagic)
	out.write("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0})
	raw := []byte{0, byte(n >> 16), byte(n >> 8), byte(n)}
	adler := func() (sum []byte) {
		x, y := uint32(1), uint32(0)
		for _, v := range raw {
			x = (x + uint32(v)) % 65521
			y = (y + x) % 65521
		}
		return []byte{byte(y >> 8), byte(y), byte(x >> 8), byte(x)}
	}()
	out.Write(slices.Concat([]byte{0x78, 1, 1, 4, 0, 0xfb, 0xff}, raw, adler))
	out.write("IEND", nil)
	return b.Bytes()
}

// classNames are what people call classes; two forms of one name are one class.
var classNames = []string{"cat", "dog", "Dog", "Café", "Cafe\u0301", "猫", "a b", "x.y", "007", "7", "n01440764", "trash", "training-shoes", "valid_id", "test_tube", "-1", "images"}

// rubbish puts things into a folder that are no part of the data.
func (w *world) rubbish(dir string) {
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{".hidden.png", w.image()}, {"Thumbs.db", []byte("x")}, {"@eaDir/a.png/SYNOPHOTO_THUMB_M.png", w.image()}, {"__MACOSX/._a.png", []byte("x")},
		{"notes.txt", []byte("hello")}, {"boxes.xml", []byte("<a/>")}, {"film.mp4", []byte{0, 1, 2, 3}}, {"lost+found/9.jpg", w.image()}, {".git/config", []byte("x")},
	} {
		if w.chance(12) {
			w.put(path.Join(dir, f.name), f.content)
			w.left++
		}
	}
}

// tree makes a folder of images.
func (w *world) tree() {
	root := ""
	if w.chance(20) { // as archives unpack
		root = w.pick("archive", "data set")
	}
	splits := map[string]map[string]string{"": w.train}
	if w.chance(60) {
		train, test := w.pick("train", "Train", "training", "ILSVRC2012_img_train", "train2017"), w.pick("val", "valid", "VALIDATION", "dev", "Test", "ILSVRC2012_img_val", "test_images")
		splits = map[string]map[string]string{train: w.train, test: w.test}
		if w.chance(20) { // not a split
			w.put(path.Join(root, "extra/1.png"), w.image())
			w.left++
		}
	}
	names := slices.Clone(classNames)
	w.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:2+w.rng.IntN(4)]
	for _, split := range slices.Sorted(maps.Keys(splits)) {
		truth := splits[split]
		dir := path.Join(root, split)
		for _, class := range names {
			for i := range 1 + w.rng.IntN(3) {
				in := path.Join(dir, class)
				if w.chance(15) {
					in = path.Join(in, w.pick("deep", "Deeper"))
				}
				name := path.Join(in, fmt.Sprintf("%d%s", i, w.pick(".png", ".PNG", ".jpg", "", ".image")))
				if _, there := w.files[name]; there {
					continue
				}
				w.put(name, w.image())
				truth[name] = norm.NFC.String(class)
				if w.chance(10) {
					stem := strings.TrimSuffix(name, path.Ext(name))
					w.put(stem+w.pick("_mask.png", ".seg.png", "-depth.png"), w.image())
					w.left++
				}
				if w.chance(8) {
					link := path.Join(dir, class, fmt.Sprintf("link%d.png", i))
					w.links[link] = w.pick("gone.png", "..", "")
					if w.links[link] == "" { // to the image
						rel, _ := filepath.Rel(path.Dir(link), name)
						w.links[link] = rel
						truth[link] = norm.NFC.String(class)
					} else {
						w.left++
					}
				}
			}
			w.rubbish(path.Join(dir, class))
		}
		if split != "" || root == "" {
			if w.chance(20) {
				w.put(path.Join(dir, "loose.png"), w.image())
				w.left++
			}
			w.rubbish(dir)
		}
	}
}

// tar makes the members of a shard.
func (w *world) tar() {
	number := w.chance(50)
	for i := range 4 + w.rng.IntN(8) {
		key := w.pick("", "dir/", "other.dir/") + fmt.Sprintf("%03d", i)
		if w.chance(20) {
			key += ".v1" // a dot in the key
		}
		class := w.pick("cat", "Café", "dog", "a b")
		if number {
			class = fmt.Sprint(w.rng.IntN(4))
		}
		image := key + w.pick(".png", ".PNG", ".jpg")
		w.put(image, w.image())
		text := class
		if number {
			text = w.pick(class, class+"\n", "\ufeff"+class, class+".0", "0"+class, " "+class)
		}
		switch form := w.rng.IntN(5); {
		case form == 0: // JSON, a number where it is one
			value := fmt.Sprintf("%q", class)
			if number {
				value = w.pick(class, class+".0", "["+class+"]", `"`+class+`"`)
			}
			text = fmt.Sprintf(`{%q: %s, "boxes": [1, 2]}`, w.pick("label", "cls", "class"), value)
			w.put(key+".json", []byte(text))
			w.read++
		case form == 1: // no class
			text, class = w.pick("-1", "", "\n", "-7.0"), ""
			w.put(key+".cls", []byte(text))
			w.read++
		case form == 2 && !strings.Contains(key, ".v"): // by a link, as the others'
			w.put("labels"+fmt.Sprint(i)+".cls", []byte(text))
			w.left++ // it is no sample's
			w.links[key+".cls"] = path.Join("..", "labels"+fmt.Sprint(i)+".cls")
			if !strings.Contains(key, "/") {
				w.links[key+".cls"] = "labels" + fmt.Sprint(i) + ".cls"
			}
			w.order = append(w.order, key+".cls")
			w.read++
		default:
			w.put(key+".cls", []byte(text))
			w.read++
		}
		w.train[image] = class
		if w.chance(15) && !strings.Contains(key, ".v") {
			w.put(key+w.pick(".seg.png", ".mask.png", ".left.png"), w.image())
			w.left++
		}
		if w.chance(15) {
			w.put(key+".txt", []byte("a caption"))
			w.left++
		}
	}
	w.rubbish("dir")
	if w.chance(30) {
		w.links["dead.png"] = "nowhere.png"
		w.order = append(w.order, "dead.png")
		w.left++
	}
	w.rng.Shuffle(len(w.order), func(i, j int) { w.order[i], w.order[j] = w.order[j], w.order[i] })
}

func (w *world) writeTree(t *testing.T, dir string) {
	for name, content := range w.files {
		write(t, filepath.Join(dir, name), content)
	}
	for name, target := range w.links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// tarFile writes the members as one archive or two, one behind the other.
func (w *world) tarFile(t *testing.T) []byte {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	again := -1
	if w.chance(30) {
		again = w.rng.IntN(len(w.order))
	}
	for i, name := range w.order {
		if i == again {
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			b.Write(make([]byte, 512*w.rng.IntN(40)))
			out = tar.NewWriter(&b)
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(w.files[name]))}
		if w.chance(20) {
			h.Name = "./" + name
		}
		if target, link := w.links[name]; link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
			if w.chance(50) {
				h.Typeflag, h.Linkname = tar.TypeLink, path.Join(path.Dir(name), target)
			}
		}
		if err := out.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(w.files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sampled is what a split holds: content → class.
func sampled(t *testing.T, d Dataset) map[string]string {
	t.Helper()
	got := make(map[string]string)
	if d == nil {
		return got
	}
	decoder := NewDecoder()
	for i := range d.Len() {
		content, err := d.(Encoded).Content(i, decoder)
		if err != nil {
			t.Fatal(err)
		}
		class := ""
		if l := d.Label(i); l >= 0 {
			class = className(d, int(l))
		}
		got[string(content)+"\x00"+norm.NFC.String(d.(Encoded).Name(i))] = class
	}
	return got
}

// Whatever people's data are, the samples and their classes are those that are meant,
// and every file is accounted for: of random trees and tars whose truth is known.
func TestRandomData(t *testing.T) {
	base := t.TempDir()
	for n := range *randomSets {
		seed := *randomSeed + uint64(n)
		w := &world{rng: rand.New(rand.NewPCG(seed, 22)), files: map[string][]byte{}, links: map[string]string{}, train: map[string]string{}, test: map[string]string{}}
		at, found := filepath.Join(base, fmt.Sprint(seed)), 0
		if isTar := w.chance(50); isTar {
			w.tar()
			at += ".tar"
			write(t, at, w.tarFile(t))
		} else {
			w.tree()
			w.writeTree(t, at)
		}
		found = len(w.files) + len(w.links)
		set, err := OpenWith(at, Options{MaxPixels: 100, MaxBytes: 1 << 20, CountAll: true})
		if err != nil {
			t.Fatalf("seed %d: %v\n%v", seed, err, w.order)
		}
		for _, split := range []struct {
			name  string
			d     Dataset
			truth map[string]string
		}{{"train", set.Train, w.train}, {"test", set.Test, w.test}} {
			want := make(map[string]string)
			for name, class := range split.truth {
				content := w.files[name]
				if target, link := w.links[name]; link {
					content = w.files[path.Join(path.Dir(name), target)]
				}
				inSplit := name
				if f, is := split.d.(*folderSplit); is {
					rel, err := filepath.Rel(f.dir, filepath.Join(at, name))
					if err != nil {
						t.Fatal(err)
					}
					inSplit = rel
				}
				want[string(content)+"\x00"+norm.NFC.String(inSplit)] = class
			}
			if got := sampled(t, split.d); !maps.Equal(got, want) {
				t.Errorf("seed %d: the %s split has %d samples of %v, want %d of %v\n%s\n%s", seed, split.name, len(got), slices.Sorted(maps.Values(got)), len(want), slices.Sorted(maps.Values(want)),
					set.Announce, strings.Join(w.order, "\n"))
			}
		}
		a := set.Account
		left := 0
		for _, l := range a.Left {
			left += l.Files
		}
		if a.Found != found || a.Train != len(w.train) || a.Test != len(w.test) || a.Read != w.read || left != w.left || a.Unruled() != 0 || a.Train+a.Test+a.Read+a.Faults+left != a.Found {
			t.Errorf("seed %d: %s; want %d found, %d, %d, %d with labels, %d left out\n%s\n%s", seed, a.Sum(), found, len(w.train), len(w.test), w.read, w.left, set.Announce, strings.Join(w.order, "\n"))
		}
		if t.Failed() {
			return
		}
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
	}
}
