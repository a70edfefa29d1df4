package data

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"mochi/coordinator/protocol"
	"mochi/replica/augment"
	"mochi/replica/data/shards"
)

// tarSplit is the index of the images in tar shards: by shard, in the order
// of their names, and in a shard by key.
type tarSplit struct {
	files     *shards.Files
	samples   []tarSample
	classes   int
	names     []string // of classes; "" or missing where only a number is known
	maxPixels int
}

type tarSample struct {
	shard, class   int32 // class −1 where unknown
	offset, length int64 // of the encoded image in the shard
	name           string
}

// openShards opens the shards that a pattern names, and those of a test split
// beside them: train in the file's name replaced by val, validation or test.
func openShards(pattern string, o Options) (*Set, error) {
	train, err := shards.Expand(pattern)
	if err != nil {
		return nil, fmt.Errorf("data %s: %w", pattern, err)
	}
	var test []string
	for _, split := range testNames {
		if test = shards.Beside(pattern, split); len(test) > 0 {
			break
		}
	}
	return openTar(pattern, train, test, o)
}

// testNames are what a test split may be called, best first.
var testNames = []string{"val", "validation", "test"}

// openShardFolder opens a folder of shards: those in train, with val,
// validation or test beside it, or those in the folder itself, where names
// that begin with val or test are the test split. It returns nil for a folder
// of other things.
func openShardFolder(dir string, names []string, o Options) (*Set, error) {
	tars := func(dir string, names []string) (paths []string) {
		for _, name := range names {
			if strings.HasSuffix(name, shards.Suffix) {
				paths = append(paths, filepath.Join(dir, name))
			}
		}
		return paths
	}
	here := tars(dir, names)
	if len(here) > 0 && !hasFolders(dir) { // beside folders, they are something else
		var train, test []string
		for _, p := range here {
			base := strings.ToLower(filepath.Base(p))
			isTest := slices.ContainsFunc(testNames, func(t string) bool { return strings.HasPrefix(base, t) || strings.Contains(base, "-"+t+"-") })
			if isTest {
				test = append(test, p)
			} else {
				train = append(train, p)
			}
		}
		if len(train) == 0 {
			train, test = test, nil
		}
		return openTar(dir, train, test, o)
	}
	trainDir := filepath.Join(dir, "train")
	names, err := files(trainDir)
	if err != nil {
		return nil, nil // not there
	}
	train := tars(trainDir, names)
	if len(train) == 0 {
		return nil, nil
	}
	var test []string
	for _, split := range testNames {
		if names, err := files(filepath.Join(dir, split)); err == nil && len(test) == 0 {
			test = tars(filepath.Join(dir, split), names)
		}
	}
	return openTar(dir, train, test, o)
}

func hasFolders(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.IsDir() && !strings.HasPrefix(e.Name(), ".")
	})
}

// openTar indexes shards. A shard that is damaged counts as far as it can be
// read. Classes are those of .cls or .json, or else the folders in the tar
// file, where train and val are splits as they are on disk.
func openTar(what string, trainPaths, testPaths []string, o Options) (*Set, error) {
	scanned, faults, err := scanAll(append(slices.Clone(trainPaths), testPaths...), o)
	if err != nil {
		return nil, err
	}
	set := &Set{Kind: "tar", Faults: faults}
	train, test := collect(scanned, 0, len(trainPaths)), collect(scanned, len(trainPaths), len(scanned))
	if len(train) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("data %s: %w", what, faults[0])
		}
		return nil, fmt.Errorf("data %s: holds no JPEG or PNG image; want members such as 000.jpg with 000.cls, or <class>/000.jpg", what)
	}
	folders := !slices.ContainsFunc(train, func(s indexed) bool { return s.class != "" })
	if folders {
		if len(test) == 0 {
			train, test = splitFolders(train)
		} else {
			stripFolders(test)
			stripFolders(train)
		}
	}
	classes := classesOfShards(train)
	numbers := len(classes) == 0
	files := shards.NewFiles(scanned)
	split := func(list []indexed) *tarSplit {
		s := &tarSplit{files: files, maxPixels: o.MaxPixels, names: classes, classes: len(classes)}
		for _, e := range list {
			class := int32(-1)
			if n, ok := shards.Number(e.class); numbers && ok {
				class = n
			} else if at, ok := slices.BinarySearch(classes, e.class); ok && e.class != "" {
				class = int32(at)
			}
			s.samples = append(s.samples, tarSample{shard: e.shard, class: class, offset: e.Offset, length: e.Size, name: e.Name})
		}
		return s
	}
	t := split(train)
	if numbers {
		for _, s := range t.samples {
			t.classes = max(t.classes, int(s.class)+1)
		}
		t.names = numberNames(scanned, t.classes)
	}
	set.Train = t
	tests := "no test images"
	if len(test) > 0 {
		v := split(test)
		for i, s := range v.samples {
			if int(s.class) >= t.classes {
				v.samples[i].class = -1
			}
		}
		v.classes, v.names = t.classes, t.names
		set.Test, tests = v, plural(v.Len(), "test image", "test images")
	}
	n := "no classes"
	if t.classes > 0 {
		n = plural(t.classes, "class", "classes")
	}
	set.Announce = fmt.Sprintf("tar shards %s: %s in %s, %s, %s", what, plural(t.Len(), "training image", "training images"),
		plural(len(trainPaths), "shard", "shards"), tests, n)
	for _, note := range shardNotes(scanned, faults) {
		set.Announce += "\n" + note
	}
	set.Info = protocol.Data{Kind: set.Kind, Train: t.Len(), Classes: t.classes, Digest: t.digest()}
	return set, nil
}

// indexed is a sample on its way into a split.
type indexed struct {
	shards.Sample
	shard int32
	class string // by .cls, .json or folder
	path  string // name without folders common to all
}

func collect(scanned []*shards.Shard, from, to int) (list []indexed) {
	for i := from; i < to; i++ {
		for _, s := range scanned[i].Samples {
			list = append(list, indexed{Sample: s, shard: int32(i), class: s.Class, path: s.Name})
		}
	}
	return list
}

// scanAll scans shards side by side and lists those that are at fault.
func scanAll(paths []string, o Options) ([]*shards.Shard, []*CorruptError, error) {
	scanned := make([]*shards.Shard, len(paths))
	var group errgroup.Group
	group.SetLimit(8) // network file systems answer in parallel
	var images, done atomic.Int64
	for i, p := range paths {
		group.Go(func() error {
			s, err := shards.ScanFile(p)
			switch {
			case errors.Is(err, os.ErrNotExist):
				return fmt.Errorf("data: %w", err)
			case err != nil:
				s = &shards.Shard{Path: p, Fault: errors.Unwrap(err)}
				if s.Fault == nil {
					s.Fault = err
				}
			}
			scanned[i] = s
			o.progress("indexed %d of %s, %s images", done.Add(1), plural(len(paths), "shard", "shards"), count(int(images.Add(int64(len(s.Samples))))))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	var faults []*CorruptError
	for _, s := range scanned {
		if s.Fault != nil {
			faults = append(faults, &CorruptError{Path: s.Path, Err: s.Fault})
		}
	}
	return scanned, faults, nil
}

// stripFolders drops the leading folders that all samples share, as long as
// some folder is left, and takes the first one left as the class.
func stripFolders(list []indexed) {
	for {
		first, _, ok := strings.Cut(list[0].path, "/")
		if !ok {
			break
		}
		deeper := false
		for _, s := range list {
			rest, shared := strings.CutPrefix(s.path, first+"/")
			if !shared {
				first = ""
				break
			}
			deeper = deeper || strings.Contains(rest, "/")
		}
		if first == "" || !deeper {
			break
		}
		for i := range list {
			list[i].path = list[i].path[len(first)+1:]
		}
	}
	for i, s := range list {
		if class, _, inFolder := strings.Cut(s.path, "/"); inFolder {
			list[i].class = class
		}
	}
}

// splitFolders finds the splits train and val (validation, test) among the
// folders of a tar file, and the classes below.
func splitFolders(list []indexed) (train, test []indexed) {
	stripFolders(list)
	top := make(map[string]bool)
	for _, s := range list {
		top[s.class] = true
	}
	for _, name := range testNames {
		if !top["train"] || !top[name] {
			continue
		}
		for _, s := range list {
			first, rest, _ := strings.Cut(s.path, "/")
			s.path, s.class = rest, ""
			if class, _, inFolder := strings.Cut(rest, "/"); inFolder {
				s.class = class
			}
			switch first {
			case "train":
				train = append(train, s)
			case name:
				test = append(test, s)
			}
		}
		return train, test
	}
	return list, nil
}

// classesOfShards are the names of the classes, sorted; none when all are
// numbers.
func classesOfShards(list []indexed) (names []string) {
	seen, words := make(map[string]bool), false
	for _, s := range list {
		if s.class != "" && !seen[s.class] {
			_, number := shards.Number(s.class)
			words = words || !number
			seen[s.class] = true
			names = append(names, s.class)
		}
	}
	if !words && !folderClasses(list) {
		return nil
	}
	slices.Sort(names)
	return names
}

// folderClasses says whether the classes are folders: their names are no
// numbers then, whatever they look like.
func folderClasses(list []indexed) bool {
	return slices.ContainsFunc(list, func(s indexed) bool { return s.class != "" && s.Class == "" })
}

// numberNames are the names that .json members give to numbered classes.
func numberNames(scanned []*shards.Shard, classes int) []string {
	var names []string
	for _, s := range scanned {
		for class, name := range s.Names {
			if n, ok := shards.Number(class); ok && int(n) < classes {
				if names == nil {
					names = make([]string, classes)
				}
				names[n] = name
			}
		}
	}
	return names
}

// shardNotes say what of the shards does not count.
func shardNotes(scanned []*shards.Shard, faults []*CorruptError) (notes []string) {
	for i, f := range faults {
		if i == 5 {
			notes = append(notes, fmt.Sprintf("and %s", plural(len(faults)-i, "more shard that cannot be read in full", "more shards that cannot be read in full")))
			break
		}
		notes = append(notes, fmt.Sprintf("%s: %v; what comes before is used", f.Path, f.Err))
	}
	var other, twice []string
	for _, s := range scanned {
		for _, name := range s.Other {
			other = append(other, s.Path+":"+name)
		}
		for _, name := range s.Twice {
			twice = append(twice, s.Path+":"+name)
		}
	}
	if n := len(other); n > 0 {
		notes = append(notes, fmt.Sprintf("left out: %s without a JPEG or PNG image of the same key, such as %s", plural(n, "member", "members"), other[0]))
	}
	if n := len(twice); n > 0 {
		notes = append(notes, fmt.Sprintf("%s twice in a shard, such as %s: the last one counts", plural(n, "member is", "members are"), twice[0]))
	}
	return notes
}

// digest is of the index: names, lengths, classes. Neither the place of the
// shards nor how the samples are dealt to them matters, only their order.
func (s *tarSplit) digest() string {
	h := sha256.New()
	io.WriteString(h, "tar\n")
	for _, f := range s.samples {
		fmt.Fprintf(h, "%s\x00%d\x00%d\n", f.name, f.length, f.class)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (s *tarSplit) Len() int          { return len(s.samples) }
func (s *tarSplit) Classes() int      { return s.classes }
func (s *tarSplit) Label(i int) int32 { return s.samples[i].class }

// ClassName is the name of a class, its number where it has none.
func (s *tarSplit) ClassName(class int) string {
	if class < len(s.names) && s.names[class] != "" {
		return s.names[class]
	}
	return fmt.Sprint(class)
}

func (s *tarSplit) Path(i int) string {
	return s.files.Path(int(s.samples[i].shard)) + ":" + s.samples[i].name
}

// Name is the sample's name in its data set.
func (s *tarSplit) Name(i int) string { return s.samples[i].name }

// Content reads the encoded image of sample i.
func (s *tarSplit) Content(i int, d *Decoder) ([]byte, error) {
	e := s.samples[i]
	if e.length == 0 {
		return nil, &CorruptError{Path: s.Path(i), Err: errEmpty}
	}
	if err := checkLength(e.length, s.maxPixels); err != nil {
		return nil, &CorruptError{Path: s.Path(i), Err: err}
	}
	content := d.Content(int(e.length))
	err := s.files.ReadAt(int(e.shard), content, e.offset)
	var shard *shards.FileError
	switch {
	case err == nil:
		return content, nil
	case exhausted(err):
		return nil, fmt.Errorf("data: %w", err)
	case errors.As(err, &shard): // one report for all its samples
		return nil, &CorruptError{Path: s.files.Path(int(e.shard)), Err: shard.Err}
	}
	return nil, &CorruptError{Path: s.Path(i), Err: err}
}

// Decode reads and decodes sample i.
func (s *tarSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	return decodeContent(s, i, d, s.maxPixels)
}
