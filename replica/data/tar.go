package data

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"mochi/replica/data/shards"
)

// openShards opens the shards that a pattern names, and those of a test split
// beside them: train in the file's name replaced by val, validation or test.
func openShards(pattern string, o Options) (*Set, error) {
	train, err := shards.Expand(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var test []string
	for _, split := range testNames {
		if test = shards.Beside(pattern, split); len(test) > 0 {
			break
		}
	}
	return openTar(pattern, train, test, o)
}

// openShardFolder opens a folder of shards: those in train, with val,
// validation or test beside it, or those in the folder itself, where names
// that begin with val or test are the test split.
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
		return nil, errOther // not there
	}
	train := tars(trainDir, names)
	if len(train) == 0 {
		return nil, errOther
	}
	var test []string
	for _, split := range testNames {
		if names, err := files(filepath.Join(dir, split)); err == nil && len(test) == 0 {
			test = tars(filepath.Join(dir, split), names)
		}
	}
	return openTar(dir, train, test, o)
}

// openTar indexes shards. A shard that is damaged counts as far as it can be
// read. Classes are those of .cls or .json, or else the folders in the tar
// file, where train and val are splits as they are on disk.
func openTar(what string, trainPaths, testPaths []string, o Options) (*Set, error) {
	scanned, faults, err := scanAll(append(slices.Clone(trainPaths), testPaths...), o)
	if err != nil {
		return nil, err
	}
	set := &Set{Kind: "tar", Faults: faults, bounds: o.bounds}
	train, test := collect(scanned, 0, len(trainPaths)), collect(scanned, len(trainPaths), len(scanned))
	if len(train) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s: %w", what, faults[0])
		}
		return nil, fmt.Errorf("%s: holds no JPEG or PNG image; want members such as 000.jpg with 000.cls, or <class>/000.jpg", what)
	}
	switch said := slices.ContainsFunc(train, func(s indexed) bool { return s.class != "" }); {
	case said: // by .cls or .json
	case len(test) == 0:
		train, test = splitFolders(train)
	default:
		stripFolders(test)
		stripFolders(train)
	}
	files, classes := shards.NewFiles(scanned), classesOfShards(train)
	t := newTarSplit(train, files, classes, o)
	if len(classes) == 0 { // they are numbers, which count from 0 to the largest
		for _, s := range t.samples {
			t.classes = max(t.classes, int(s.class)+1)
		}
		t.names = numberNames(scanned, t.classes)
	}
	set.Train = t
	if len(test) > 0 {
		v := newTarSplit(test, files, classes, o)
		for i, s := range v.samples {
			if int(s.class) >= t.classes {
				v.samples[i].class = -1
			}
		}
		v.classes, v.names = t.classes, t.names
		set.Test = v
	}
	set.describe("tar shards "+what, " in "+plural(len(trainPaths), "shard", "shards"), t.digest(), shardNotes(scanned, faults)...)
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
	group.SetLimit(readers)
	var images, done atomic.Int64
	for i, p := range paths {
		group.Go(func() error {
			s, err := shards.ScanFile(p)
			switch {
			case errors.Is(err, os.ErrNotExist):
				return err
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

// shardNotes say what of the shards does not count.
func shardNotes(scanned []*shards.Shard, faults []*CorruptError) (notes []string) {
	for i, f := range faults {
		if i == shownFaults {
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
