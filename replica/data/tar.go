package data

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/text/unicode/norm"

	"mochi/replica/data/naming"
	"mochi/replica/data/parquet"
	"mochi/replica/data/shards"
)

// openShards opens the shards that a pattern names, and those of a test split
// beside them: the word for the training split in the file's name replaced by one for
// a test split.
func openShards(pattern string, o Options) (*Set, error) {
	train, err := shards.Expand(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var test []string
	for _, split := range naming.TestWords {
		if test = shards.Beside(pattern, split); len(test) > 0 {
			break
		}
	}
	return openTar(pattern, train, test, o, Account{Unit: members})
}

// members is what is counted of shards.
const members = "members of shards, and files beside these,"

// openShardFolder opens a folder of shards: those in the folder of a training split,
// with one of a test split beside it, or those in the folder itself, where the names
// say which belong to a test split.
func openShardFolder(dir string, names []string, o Options) (*Set, error) {
	account := Account{Unit: members}
	here := tarsIn(dir, names)
	below, err := subfolders(dir)
	if err != nil {
		return nil, err
	}
	if len(here) > 0 && len(below) == 0 { // beside folders, they are something else
		if err := leaveFiles(&account, o, dir, here); err != nil {
			return nil, err
		}
		return openShardFiles(dir, here, o, account)
	}
	trainDir, testDir, other, err := naming.Splits(below)
	if err != nil || trainDir == "" {
		return nil, errOther // of which folders of images say more
	}
	in := func(split string) []string {
		if split == "" {
			return nil
		}
		names, err := files(filepath.Join(dir, split))
		if err != nil {
			return nil
		}
		return tarsIn(filepath.Join(dir, split), names)
	}
	train, test := in(trainDir), in(testDir)
	if len(train) == 0 {
		return nil, errOther
	}
	for ; len(test) == 0 && len(other) > 0; other = other[1:] {
		test = in(other[0])
	}
	for _, split := range []string{trainDir, testDir} {
		if split != "" {
			if err := leaveFiles(&account, o, filepath.Join(dir, split), slices.Concat(train, test)); err != nil {
				return nil, err
			}
		}
	}
	return openTar(dir, train, test, o, account)
}

// tarsIn are the shards among the files of a folder.
func tarsIn(dir string, names []string) (paths []string) {
	for _, name := range names {
		full := filepath.Join(dir, name)
		switch shards.SuffixOf(name) {
		case "":
		case parquet.Suffix:
			if parquet.HasImages(full) {
				paths = append(paths, full)
			}
		default:
			paths = append(paths, full)
		}
	}
	return paths
}

// leaveFiles counts what lies in a folder beside the shards that are used.
func leaveFiles(a *Account, o Options, dir string, used []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	l := listing{root: dir, o: o}
	for _, e := range entries {
		full := filepath.Join(dir, e.Name())
		switch {
		case slices.Contains(used, full):
		case e.IsDir():
			l.leaveFolder(cmp.Or(naming.Skipped(e.Name()), naming.OtherSplit), e.Name())
		default:
			if err := l.add(e.Name(), e); err != nil {
				return err
			}
		}
	}
	a.add(l.account)
	a.leave(naming.OtherSplit, len(l.images), 0, dir)
	return nil
}

// openShardFiles opens the shards of one folder: of several test splits that their
// names tell, the first in the order of naming.TestWords.
func openShardFiles(dir string, paths []string, o Options, account Account) (*Set, error) {
	of := make(map[string][]string)
	var train []string
	for _, p := range paths {
		word := naming.SplitOfShard(strings.TrimSuffix(filepath.Base(p), shards.SuffixOf(p)))
		if slices.Contains(naming.TestWords, word) {
			of[word] = append(of[word], p)
		} else {
			train = append(train, p)
		}
	}
	var test []string
	for _, word := range naming.TestWords {
		switch {
		case len(of[word]) > 0 && len(train) == 0:
			train = of[word] // there is nothing else
		case len(of[word]) > 0 && len(test) == 0:
			test = of[word]
		case len(of[word]) > 0:
			account.leave(naming.OtherSplit, len(of[word]), 0, of[word][0])
		}
	}
	return openTar(dir, train, test, o, account)
}

// openTar indexes shards. A shard that is damaged counts as far as it can be
// read. Classes are those of .cls or .json, or else the folders in the tar
// file, where train and val are splits as they are on disk.
func openTar(what string, trainPaths, testPaths []string, o Options, account Account) (*Set, error) {
	scanned, faults, err := scanAll(append(slices.Clone(trainPaths), testPaths...), o)
	if err != nil {
		return nil, err
	}
	return openScanned(what, scanned, faults, len(trainPaths), o, account)
}

// openScanned makes a set of shards that were scanned, the first of them of the training
// split.
func openScanned(what string, scanned []*shards.Shard, faults []*CorruptError, trainShards int, o Options, account Account) (*Set, error) {
	var err error
	kind, title, parts := "tar", "tar shards ", " in "+plural(trainShards, "shard", "shards")
	switch {
	case shards.IsZip(what):
		kind, title, parts = "zip", "zip archive ", ""
	case shards.SuffixOf(scanned[0].Path) == parquet.Suffix:
		kind, title, parts = "parquet", "parquet files ", " in "+plural(trainShards, "file", "files")
	}
	set := &Set{Kind: kind, Faults: faults, bounds: o.bounds}
	train, test := collect(scanned, 0, trainShards), collect(scanned, trainShards, len(scanned))
	if len(train) == 0 {
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s: %w", what, faults[0])
		}
		return nil, fmt.Errorf("%s: holds no %s image; want members such as 000.jpg with 000.cls, or <class>/000.jpg", what, imageFormats)
	}
	all, notes := len(train)+len(test), []string(nil)
	switch said := slices.ContainsFunc(train, func(s indexed) bool { return s.class != "" }); {
	case said: // by .cls or .json
	case len(test) == 0:
		if train, test, notes, err = splitFolders(train); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	default:
		stripFolders(test)
		stripFolders(train)
	}
	files, classes := shards.NewFiles(scanned), classesOfShards(train)
	set.Train = newTarSplit(train, files, classes, scanned, o)
	if len(test) > 0 {
		v := newTarSplit(test, files, classes, scanned, o)
		set.unknown = v.unknownClasses(test, scanned)
		set.Test = v
	}
	set.Account = account
	set.Account.used(len(train), len(test), 0)
	set.Account.leave(naming.OtherSplit, all-len(train)-len(test), 0, what)
	countShards(&set.Account, scanned)
	notes = append(shardNotes(scanned, faults), notes...)
	if set.Train.Classes() == 1 {
		notes = append(notes, fmt.Sprintf("the only class is %s: kNN accuracy will say nothing", className(set.Train, 0)))
	}
	set.describe(title+what, parts, set.Train.(*tarSplit).digest(), append(notes, set.Account.notes()...)...)
	return set, nil
}

// countShards counts what became of the members that are no samples.
func countShards(a *Account, scanned []*shards.Shard) {
	for _, s := range scanned {
		a.used(0, 0, s.Read)
		for _, l := range s.Left {
			a.leave(l.Why, 1, 0, s.Path+":"+l.Name)
		}
	}
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
			list = append(list, indexed{Sample: s, shard: int32(i), class: norm.NFC.String(s.Class), path: norm.NFC.String(s.Name)})
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
			s, err := scanShard(p, o)
			if err != nil {
				return err
			}
			scanned[i] = s
			o.progress("indexed %d of %s, %s images", done.Add(1), plural(len(paths), "shard", "shards"), count(int(images.Add(int64(len(s.Samples))))))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	return scanned, faultsOf(scanned), nil
}

// faultsOf lists the shards that are at fault.
func faultsOf(scanned []*shards.Shard) (faults []*CorruptError) {
	for _, s := range scanned {
		if s.Fault != nil {
			faults = append(faults, &CorruptError{Path: s.Path, Err: s.Fault})
		}
	}
	return faults
}

// shardNotes say what of the shards does not count.
func shardNotes(scanned []*shards.Shard, faults []*CorruptError) (notes []string) {
	samples := make(map[string]int)
	for _, s := range scanned {
		samples[s.Path] = len(s.Samples)
	}
	for i, f := range faults {
		if i == shownFaults {
			notes = append(notes, fmt.Sprintf("and %s", plural(len(faults)-i, "more shard that cannot be read in full", "more shards that cannot be read in full")))
			break
		}
		used := "what comes before is used"
		if samples[f.Path] == 0 {
			used = "nothing of it is used"
		}
		notes = append(notes, fmt.Sprintf("%s: %v; %s", f.Path, f.Err, used))
	}
	if note := packedNote(scanned); note != "" {
		notes = append(notes, note)
	}
	var odd []string
	for _, s := range scanned {
		for _, name := range s.Odd {
			odd = append(odd, s.Path+":"+name)
		}
	}
	if n := len(odd); n > 0 {
		notes = append(notes, fmt.Sprintf("%s not understood, such as %s: their samples count as unlabelled", plural(n, "label is", "labels are"), odd[0]))
	}
	return notes
}
