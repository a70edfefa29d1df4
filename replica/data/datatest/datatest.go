// Package datatest makes random data sets with a known truth, for tests: as people have
// them, with odd names and cases, links, hidden files, masks, several images a sample, and
// labels of every form.
package datatest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/text/unicode/norm"
)

// Sample is an image that is part of a data set.
type Sample struct {
	Path    string // as data.Dataset has it, composed (Unicode NFC)
	Content string // of its file
	Class   string // its name, "" for none
}

// World is a data set on the disk, and what is true of it.
type World struct {
	Sources     []string // what is given as --data
	Train, Test []Sample // in no order
	Found       int      // files, members and lines
	Left        int      // of them those that are left out
	Read        int      // and those that hold labels
	Told        string   // what it is made of, for people
}

// Make makes the data set of a seed below dir, of one source or several.
func Make(seed uint64, dir string) (World, error) {
	var w World
	rng := rand.New(rand.NewPCG(seed, 22))
	sources := 1
	if rng.IntN(100) < 20 {
		sources += 1 + rng.IntN(2)
	}
	for n := range sources {
		m := &maker{rng: rng, now: n << 16, at: filepath.Join(dir, fmt.Sprintf("%d-%d", seed, n))}
		if err := m.make(&w); err != nil {
			return w, err
		}
	}
	known := make(map[string]bool)
	for _, s := range w.Train {
		known[s.Class] = true
	}
	for i := range w.Test {
		if !known[w.Test[i].Class] {
			w.Test[i].Class = "" // no training image has it
		}
	}
	return w, nil
}

// maker makes one source.
type maker struct {
	rng *rand.Rand
	at  string // where, without an ending
	now int    // images so far

	contents
	left, read int
}

// contents are the files of a folder, or the members of a tar file.
type contents struct {
	files       map[string][]byte // path → content
	links       map[string]string // path → target, as it is written
	order       []string          // of members
	train, test map[string]string // path → class, "" for none
}

func (w *maker) clear() {
	w.contents = contents{map[string][]byte{}, map[string]string{}, nil, map[string]string{}, map[string]string{}}
}

// make makes a source of some kind and adds it to a world.
func (w *maker) make(to *World) error {
	w.clear()
	switch w.rng.IntN(6) {
	case 0, 1:
		return w.makeTree(to)
	case 2, 3:
		return w.makeTar(to, w.at+w.pick(".tar", ".tar", ".tar.gz", ".tgz"))
	case 4:
		return w.makeShards(to)
	}
	return w.makeList(to)
}

func (w *maker) makeTree(to *World) error {
	w.tree()
	to.Sources = append(to.Sources, w.at)
	w.add(to, w.at+"/")
	return w.writeTree()
}

func (w *maker) makeTar(to *World, file string) error {
	w.tar()
	to.Sources = append(to.Sources, file)
	w.add(to, file+":")
	return w.writeTar(file)
}

// makeShards makes a folder of shards, with a test split.
func (w *maker) makeShards(to *World) error {
	words := [2]string{w.pick("train", "Training", "photos-train"), w.pick("val", "valid", "Test")}
	ending := w.pick(".tar", ".tar", ".tar.gz")
	for split, word := range words {
		for n := range 1 + w.rng.IntN(2) {
			w.tar()
			file := filepath.Join(w.at, fmt.Sprintf("%s-%03d%s", word, n, ending))
			if split == 1 {
				w.train, w.test = w.test, w.train
			}
			w.add(to, file+":")
			if err := w.writeTar(file); err != nil {
				return err
			}
			w.clear()
		}
	}
	to.Sources = append(to.Sources, w.at)
	return nil
}

// add adds the truth of what is in hand, whose paths begin with a prefix.
func (w *maker) add(to *World, prefix string) {
	samples := func(of map[string]string) (list []Sample) {
		for name, class := range of {
			content := w.files[name]
			if target, link := w.links[name]; link {
				content = w.files[path.Join(path.Dir(name), target)]
			}
			list = append(list, Sample{norm.NFC.String(prefix + name), string(content), class})
		}
		return list
	}
	to.Train, to.Test = append(to.Train, samples(w.train)...), append(to.Test, samples(w.test)...)
	to.Found += len(w.files) + len(w.links)
	to.Left, to.Read = to.Left+w.left, to.Read+w.read
	to.Told += fmt.Sprintf("%s %q links %v\n", prefix, w.order, w.links)
	w.left, w.read = 0, 0
}

func (w *maker) pick(list ...string) string { return list[w.rng.IntN(len(list))] }

func (w *maker) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *maker) put(name string, content []byte) {
	w.files[name] = content
	w.order = append(w.order, name)
}

// image is a new picture, unlike all others.
func (w *maker) image() []byte {
	w.now++
	return PNG(w.now)
}

// PNG is a PNG file of 1×1 pixels, its colour a number.
func PNG(n int) []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, content []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
		from := len(b)
		b = append(append(b, kind...), content...)
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
	}
	chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0})
	raw := []byte{0, byte(n >> 16), byte(n >> 8), byte(n)}
	chunk("IDAT", binary.BigEndian.AppendUint32(append([]byte{0x78, 1, 1, 4, 0, 0xfb, 0xff}, raw...), adler32.Checksum(raw)))
	chunk("IEND", nil)
	return b
}

func write(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// writeTree writes what is in hand as files.
func (w *maker) writeTree() error {
	for name, content := range w.files {
		if err := write(filepath.Join(w.at, name), content); err != nil {
			return err
		}
	}
	for name, target := range w.links {
		if err := os.Symlink(target, filepath.Join(w.at, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeTar writes what is in hand as one archive or two, one behind the other, packed
// where the name says so.
func (w *maker) writeTar(file string) error {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	again := -1
	if w.chance(30) {
		again = w.rng.IntN(len(w.order))
	}
	for i, name := range w.order {
		if i == again {
			if err := out.Close(); err != nil {
				return err
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
			return err
		}
		if _, err := out.Write(w.files[name]); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	if filepath.Ext(file) == ".tar" {
		return write(file, b.Bytes())
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(b.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return write(file, packed.Bytes())
}
