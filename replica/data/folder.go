package data

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"mochi/replica/augment"
)

// folderSplit is the sorted listing of a folder of images.
type folderSplit struct {
	dir     string
	samples []sampleFile // by class, then by path
	classes []string     // sorted; empty when unlabelled
	bounds  *bounds
}

// sampleFile is one listed image.
type sampleFile struct {
	path  string // relative to folderSplit.dir, with slashes
	size  int64  // bytes
	class int32  // −1 where unknown
}

// openFolder opens a folder of images: train/<class>/* with val, validation
// or test beside it, or <class>/*, or images without classes. Files below a
// class's own folders belong to it. It is labelled by folder name, in byte
// order.
func openFolder(dir string, o Options) (*Set, error) {
	trainDir, testDir, err := findSplits(dir)
	if err != nil {
		return nil, err
	}
	train, out, err := listSplit(trainDir, o)
	if err != nil {
		return nil, err
	}
	notes, faults := out.notes(), out.faults
	if len(train.samples) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s: no image can be listed: %w", trainDir, faults[0])
		}
		return nil, fmt.Errorf("%s: holds no JPEG or PNG image; want train/<class>/* with val or test beside it, or <class>/*", trainDir)
	}
	set := &Set{Train: train, Kind: "folder", bounds: o.bounds}
	if testDir != "" {
		test, out, err := listSplit(testDir, o)
		if err != nil {
			return nil, err
		}
		notes, faults = append(notes, out.notes()...), append(faults, out.faults...)
		if len(test.samples) > 0 {
			notes = append(notes, test.relabel(train.classes)...)
			set.Test = test
		}
	}
	if len(train.classes) == 1 {
		notes = append(notes, fmt.Sprintf("the only class is %s: kNN accuracy will say nothing", train.classes[0]))
	}
	set.Faults = faults
	set.describe("image folder "+trainDir, "", train.digest(), notes...)
	return set, nil
}

// findSplits finds the training and the test folder, "" for none. A folder
// train is taken for the training split when a test split lies beside it or
// when it has folders of its own; otherwise it is a class like any other.
func findSplits(dir string) (train, test string, err error) {
	for _, name := range testNames {
		if _, err := os.ReadDir(filepath.Join(dir, name)); err == nil {
			test = filepath.Join(dir, name)
			break
		}
	}
	train = filepath.Join(dir, "train")
	entries, err := os.ReadDir(train)
	if err == nil && (test != "" || slices.ContainsFunc(entries, os.DirEntry.IsDir)) {
		return train, test, nil
	}
	if test != "" {
		entries, err := os.ReadDir(test)
		if err == nil && slices.ContainsFunc(entries, os.DirEntry.IsDir) {
			return "", "", fmt.Errorf("%s: has %s, but no folder train beside it", dir, filepath.Base(test))
		}
	}
	return dir, "", nil // test, if it exists, is a class like any other
}

// listSplit lists the images of one split, and what it holds besides.
func listSplit(dir string, o Options) (*folderSplit, leftOut, error) {
	out := leftOut{dir: dir}
	classes, loose, err := listTop(dir, o)
	if err != nil {
		return nil, out, err
	}
	listed, err := walkAll(dir, classes, o)
	if err != nil {
		return nil, out, err
	}
	s := &folderSplit{dir: dir, bounds: o.bounds}
	out.other, out.faults = loose.other, loose.faults
	for i, l := range listed {
		out.other, out.faults = append(out.other, l.other...), append(out.faults, l.faults...)
		if len(l.images) == 0 {
			out.empty = append(out.empty, classes[i])
			continue
		}
		for j := range l.images {
			l.images[j].class = int32(len(s.classes))
		}
		sort.Slice(l.images, func(a, b int) bool { return l.images[a].path < l.images[b].path })
		s.classes = append(s.classes, classes[i])
		s.samples = append(s.samples, l.images...)
	}
	if len(s.classes) > 0 {
		out.loose = loose.images
		return s, out, nil
	}
	s.samples = loose.images
	for i := range s.samples {
		s.samples[i].class = -1
	}
	return s, out, nil
}

// leftOut is what a split's folder holds that is not part of the split.
type leftOut struct {
	dir    string
	loose  []sampleFile    // images beside the class folders
	empty  []string        // class folders without an image
	other  []string        // files that are no images
	faults []*CorruptError // what could not be read
}

// notes says it to people.
func (l leftOut) notes() (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if n := len(l.loose); n > 0 {
		note("left out: %s in %s outside any class folder, such as %s", plural(n, "image", "images"), l.dir, l.loose[0].path)
	}
	if n := len(l.empty); n > 0 {
		note("left out: %s of %s without an image, such as %s", plural(n, "folder", "folders"), l.dir, l.empty[0])
	}
	if n := len(l.other); n > 0 {
		note("left out: %s of %s, neither JPEG nor PNG, such as %s", plural(n, "file", "files"), l.dir, l.other[0])
	}
	for i, f := range l.faults {
		if i == shownFaults {
			note("and %s", plural(len(l.faults)-i, "more place that cannot be read", "more places that cannot be read"))
			break
		}
		note("left out: %s cannot be read: %v", f.Path, f.Err)
	}
	return notes
}

// relabel gives the samples the classes of the training split, by name.
func (s *folderSplit) relabel(classes []string) (notes []string) {
	to := make([]int32, len(s.classes))
	for i, name := range s.classes {
		to[i] = -1
		if j, found := slices.BinarySearch(classes, name); found {
			to[i] = int32(j)
		} else if len(classes) > 0 {
			notes = append(notes, fmt.Sprintf("class %s of %s has no training images: its images count as unknown", name, s.dir))
		}
	}
	for i := range s.samples {
		if c := s.samples[i].class; c >= 0 {
			s.samples[i].class = to[c]
		}
	}
	s.classes = classes
	return notes
}

// digest is of the sorted listing: relative names and sizes.
func (s *folderSplit) digest() hash.Hash {
	h := sha256.New()
	io.WriteString(h, "folder\n")
	for _, f := range s.samples {
		fmt.Fprintf(h, "%s\x00%d\n", f.path, f.size)
	}
	return h
}

func (s *folderSplit) Len() int          { return len(s.samples) }
func (s *folderSplit) Classes() int      { return len(s.classes) }
func (s *folderSplit) Label(i int) int32 { return s.samples[i].class }

func (s *folderSplit) Path(i int) string {
	return filepath.Join(s.dir, filepath.FromSlash(s.samples[i].path))
}

// ClassName is the name of a class: its folder's.
func (s *folderSplit) ClassName(class int) string { return s.classes[class] }

// Name is the sample's name in its data set: its path below the split.
func (s *folderSplit) Name(i int) string { return s.samples[i].path }

// Content reads the encoded image of sample i.
func (s *folderSplit) Content(i int, d *Decoder) ([]byte, error) {
	return readContent(s.Path(i), s.bounds.Load(), d)
}

// Decode reads and decodes sample i.
func (s *folderSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	return decodeContent(s, i, d, s.bounds.Load())
}
