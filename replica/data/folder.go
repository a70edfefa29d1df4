package data

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"mochi/replica/augment"
)

// folderSplit is the sorted listing of a folder of images.
type folderSplit struct {
	dir       string
	samples   []sampleFile // by class, then by path
	classes   []string     // sorted; empty when unlabelled
	maxPixels int
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
	train, notes, faults, err := listSplit(trainDir, o)
	if err != nil {
		return nil, err
	}
	if len(train.samples) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s: no image can be listed: %w", trainDir, faults[0])
		}
		return nil, fmt.Errorf("%s: holds no JPEG or PNG image; want train/<class>/* with val or test beside it, or <class>/*", trainDir)
	}
	set := &Set{Train: train, Kind: "folder"}
	if testDir != "" {
		test, more, bad, err := listSplit(testDir, o)
		if err != nil {
			return nil, err
		}
		notes, faults = append(notes, more...), append(faults, bad...)
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

// listSplit lists the images of one split. The notes say what was left out,
// the faults what could not be read.
func listSplit(dir string, o Options) (*folderSplit, []string, []*CorruptError, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	var classes []string
	loose := listing{root: dir, readDir: o.readDir}
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		full := filepath.Join(dir, e.Name())
		info, err := os.Stat(full)
		switch {
		case err != nil || !info.IsDir():
			err = loose.add(e.Name(), e)
		case !e.IsDir() && encloses(full, dir):
			err = loose.fault(full, errors.New("a link to a folder that this one lies in"))
		default:
			classes = append(classes, e.Name())
			err = nil
		}
		if err != nil {
			return nil, nil, nil, err
		}
	}
	listed := make([]listing, len(classes))
	var group errgroup.Group
	group.SetLimit(8) // network file systems answer in parallel
	var images, done atomic.Int64
	for i, class := range classes {
		listed[i].root, listed[i].readDir = dir, o.readDir
		group.Go(func() error {
			err := listed[i].walk(class)
			o.progress("listed %d of %s, %s images", done.Add(1), plural(len(classes), "folder", "folders"), count(int(images.Add(int64(len(listed[i].images))))))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, nil, err
	}

	s := &folderSplit{dir: dir, maxPixels: o.MaxPixels}
	var empty []string
	other, faults := loose.other, loose.faults
	for i, l := range listed {
		other, faults = append(other, l.other...), append(faults, l.faults...)
		if len(l.images) == 0 {
			empty = append(empty, classes[i])
			continue
		}
		for j := range l.images {
			l.images[j].class = int32(len(s.classes))
		}
		sort.Slice(l.images, func(a, b int) bool { return l.images[a].path < l.images[b].path })
		s.classes = append(s.classes, classes[i])
		s.samples = append(s.samples, l.images...)
	}
	var notes []string
	if len(s.classes) == 0 {
		s.samples = loose.images
		for i := range s.samples {
			s.samples[i].class = -1
		}
	} else if n := len(loose.images); n > 0 {
		notes = append(notes, fmt.Sprintf("left out: %s in %s outside any class folder, such as %s", plural(n, "image", "images"), dir, loose.images[0].path))
	}
	if len(empty) > 0 {
		notes = append(notes, fmt.Sprintf("left out: %s of %s without an image, such as %s", plural(len(empty), "folder", "folders"), dir, empty[0]))
	}
	if len(other) > 0 {
		notes = append(notes, fmt.Sprintf("left out: %s of %s, neither JPEG nor PNG, such as %s", plural(len(other), "file", "files"), dir, other[0]))
	}
	for i, f := range faults {
		if i == 5 {
			notes = append(notes, fmt.Sprintf("and %s", plural(len(faults)-i, "more place that cannot be read", "more places that cannot be read")))
			break
		}
		notes = append(notes, fmt.Sprintf("left out: %s cannot be read: %v", f.Path, f.Err))
	}
	return s, notes, faults, nil
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
	return readContent(s.Path(i), s.maxPixels, d)
}

// Decode reads and decodes sample i.
func (s *folderSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	return decodeContent(s, i, d, s.maxPixels)
}
