package data

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"mochi/replica/augment"
	"mochi/replica/data/naming"
)

// folderSplit is the sorted listing of a folder of images.
type folderSplit struct {
	dir     string
	samples []sampleFile   // by class, then by path
	classes []string       // sorted, composed (NFC); empty when unlabelled
	unknown map[int]string // the classes of samples that no training image has
	folder  string         // of the class listed last: of the only one
	bounds  *bounds
}

// sampleFile is one listed image.
type sampleFile struct {
	path  string // relative to folderSplit.dir, with slashes
	size  int64  // bytes
	class int32  // −1 where unknown
}

// openFolder opens a folder of images: a training split and a test split beside it
// (splits.go), or <class>/*, or images without classes. Files below a class's own
// folders belong to it. It is labelled by folder name, in byte order of the composed
// form (Unicode NFC), which is one for all machines.
func openFolder(dir string, o Options) (*Set, error) { return openFolderIn(dir, nil, o) }

// openFolderIn is openFolder of a folder in others that hold nothing else of use.
func openFolderIn(dir string, above []string, o Options) (*Set, error) {
	l, passed, err := findLayout(dir)
	if err != nil {
		return nil, err
	}
	passed = append(above, passed...)
	train, out, err := listSplit(l.train, o)
	if err != nil {
		return nil, err
	}
	if len(train.classes) == 1 && l.test == "" && len(passed) < deepest { // splits may be in the only folder that has images
		inner := filepath.Join(l.train, train.folder)
		if below, _, err := findLayout(inner); err == nil && below.train != below.dir {
			return openFolderIn(inner, append(passed, l.dir), o)
		}
	}
	notes, faults := append(l.notes, out.notes()...), out.faults
	if len(train.samples) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s: no image can be listed: %w", l.train, faults[0])
		}
		return nil, &noImages{dir: l.train}
	}
	set := &Set{Train: train, Kind: "folder", bounds: o.bounds, Account: Account{Unit: "files"}}
	account := &set.Account
	account.used(len(train.samples), 0, 0)
	account.add(out.account)
	if l.test != "" {
		o.labels = labelFile(l.test, append(passed, l.dir))
		test, out, err := listSplit(l.test, o)
		if err != nil {
			return nil, err
		}
		if o.labels != "" {
			notes = append(notes, account.labelled(test, train.classes, o.labels)...)
		}
		notes, faults = append(notes, out.notes()...), append(faults, out.faults...)
		account.used(0, len(test.samples), 0)
		account.add(out.account)
		if len(test.samples) > 0 {
			set.unknown = test.relabel(train.classes)
			set.Test = test
		} else {
			notes = append(notes, fmt.Sprintf("%s holds no image: there is no test split", l.test))
		}
	}
	if l.train != l.dir {
		passed = append(passed, l.dir)
	}
	for _, above := range passed {
		if err := leaveBeside(account, o, above, l, passed); err != nil {
			return nil, err
		}
	}
	account.Found += len(faults)
	account.Faults = len(faults)
	if len(train.classes) == 1 {
		notes = append(notes, fmt.Sprintf("the only class is %s: kNN accuracy will say nothing", train.classes[0]))
	}
	set.Faults = faults
	set.describe("image folder "+l.train, "", train.digest(), append(notes, account.notes()...)...)
	return set, nil
}

// noImages says that a folder is no folder of images.
type noImages struct{ dir string }

func (e *noImages) Error() string {
	return fmt.Sprintf("%s: holds no %s image; want train/<class>/* with val or test beside it, or <class>/*; %s", e.dir, imageFormats, whatHolds(e.dir))
}

// leaveBeside counts what lies in a folder above the splits that are used.
func leaveBeside(a *Account, o Options, above string, l layout, passed []string) error {
	entries, err := os.ReadDir(above)
	if err != nil {
		return err
	}
	used := append([]string{l.train, l.test, l.dir}, passed...)
	beside := listing{root: above, o: o}
	for _, e := range entries {
		full := filepath.Join(above, e.Name())
		info, err := os.Stat(full)
		switch why := naming.Skipped(e.Name()); {
		case err != nil || !info.IsDir():
			if err := beside.add(e.Name(), e); err != nil {
				return err
			}
		case slices.Contains(used, full):
		case !e.IsDir():
			a.leave(naming.FolderLink, 1, 0, full)
		case why != "":
			beside.leaveFolder(why, e.Name())
		default:
			beside.leaveFolder(naming.OtherSplit, e.Name())
		}
	}
	a.leave(naming.OtherSplit, len(beside.images), 0, above)
	a.add(beside.account)
	return nil
}

// listSplit lists the images of one split, and what it holds besides.
func listSplit(dir string, o Options) (*folderSplit, leftOut, error) {
	out := leftOut{dir: dir}
	folders, loose, err := listTop(dir, o)
	if err != nil {
		return nil, out, err
	}
	listed, err := walkAll(dir, folders, o)
	if err != nil {
		return nil, out, err
	}
	s := &folderSplit{dir: dir, bounds: o.bounds}
	out.account, out.faults = loose.account, loose.faults
	class := make(map[string][]sampleFile)
	for i, l := range listed {
		out.account.add(l.account)
		out.faults = append(out.faults, l.faults...)
		if len(l.images) == 0 {
			out.empty = append(out.empty, folders[i])
			continue
		}
		name := norm.NFC.String(folders[i])
		if class[name] != nil {
			out.same = append(out.same, folders[i])
		}
		class[name], s.folder = append(class[name], l.images...), folders[i]
	}
	s.classes = slices.Sorted(maps.Keys(class))
	for c, name := range s.classes {
		images := class[name]
		sortByName(images)
		for i := range images {
			images[i].class = int32(c)
		}
		s.samples = append(s.samples, images...)
	}
	if len(s.classes) > 0 {
		if n := len(loose.images); n > 0 {
			out.account.leave(naming.Loose, n, 0, loose.full(loose.images[0].path))
		}
		return s, out, nil
	}
	s.samples = loose.images
	sortByName(s.samples)
	for i := range s.samples {
		s.samples[i].class = -1
	}
	return s, out, nil
}

// sortByName sorts by the composed form of the paths, in which no two machines differ.
func sortByName(images []sampleFile) {
	if slices.ContainsFunc(images, func(f sampleFile) bool { return !norm.NFC.IsNormalString(f.path) }) {
		slices.SortFunc(images, func(a, b sampleFile) int {
			return cmp.Or(strings.Compare(norm.NFC.String(a.path), norm.NFC.String(b.path)), strings.Compare(a.path, b.path))
		})
		return
	}
	slices.SortFunc(images, func(a, b sampleFile) int { return strings.Compare(a.path, b.path) })
}

// leftOut is what a split's folder holds that is not part of the split.
type leftOut struct {
	dir     string
	account Account
	empty   []string        // class folders without an image
	same    []string        // folders whose names differ from others' in their Unicode form only
	faults  []*CorruptError // what could not be read
}

// notes says it to people, but for the account.
func (l leftOut) notes() (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if n := len(l.empty); n > 0 {
		note("left out: %s of %s without an image, such as %s", plural(n, "folder", "folders"), l.dir, l.empty[0])
	}
	if n := len(l.same); n > 0 {
		note("%s of %s is the class of another folder, whose name is the same in another Unicode form", l.same[0], l.dir)
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
	number := make(map[string]int32, len(classes))
	for i, name := range classes {
		number[name] = int32(i)
	}
	to := make([]int32, len(s.classes))
	for i, name := range s.classes {
		to[i] = -1
		if j, found := number[name]; found {
			to[i] = j
		} else if len(classes) > 0 {
			notes = append(notes, fmt.Sprintf("class %s of %s has no training images: its images count as unknown", name, s.dir))
		}
	}
	s.unknown = make(map[int]string)
	for i := range s.samples {
		if c := s.samples[i].class; c >= 0 {
			if s.samples[i].class = to[c]; to[c] < 0 {
				s.unknown[i] = s.classes[c]
			}
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
		fmt.Fprintf(h, "%s\x00%d\n", norm.NFC.String(f.path), f.size)
	}
	return h
}

func (s *folderSplit) Len() int          { return len(s.samples) }
func (s *folderSplit) Classes() int      { return len(s.classes) }
func (s *folderSplit) Label(i int) int32 { return s.samples[i].class }

// strange implements stranger.
func (s *folderSplit) strange(i int) string { return s.unknown[i] }

func (s *folderSplit) Path(i int) string {
	return filepath.Join(s.dir, filepath.FromSlash(s.samples[i].path))
}

// ClassName is the name of a class: its folder's.
func (s *folderSplit) ClassName(class int) string { return s.classes[class] }

// Name is the sample's name in its data set: its path below the split, composed.
func (s *folderSplit) Name(i int) string { return norm.NFC.String(s.samples[i].path) }

// Content reads the encoded image of sample i.
func (s *folderSplit) Content(i int, d *Decoder) ([]byte, error) {
	return readContent(s.Path(i), s.bounds.Load(), d)
}

// Decode reads and decodes sample i.
func (s *folderSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	return decodeContent(s, i, d, s.bounds.Load())
}
