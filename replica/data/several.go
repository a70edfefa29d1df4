package data

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/text/unicode/norm"

	"mochi/replica/augment"
)

// OpenAll opens the data sets at several paths as one: the samples of the first, then
// those of the second, and so on. Classes of one name are one class; where a source has
// numbers only, these are the names. A single path is OpenWith.
func OpenAll(paths []string, o Options) (*Set, error) {
	if len(paths) == 1 {
		return OpenWith(paths[0], o)
	}
	o.bounds = newBounds(o)
	seen := make(map[string]string)
	var sets []*Set
	for _, path := range paths {
		place, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if real, err := filepath.EvalSymlinks(place); err == nil {
			place = real
		}
		if before, again := seen[place]; again {
			return nil, fmt.Errorf("%s is given twice, as %s too: its images would count twice", Shown(path), Shown(before))
		}
		seen[place] = path
		set, err := OpenWith(path, o)
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = Shown(path)
	}
	return unite(names, sets, o), nil
}

// unite makes one set of several.
func unite(paths []string, sets []*Set, o Options) *Set {
	var trains, tests []Dataset
	var of []string // of tests, the path
	all := &Set{Kind: "several", bounds: o.bounds, Account: Account{Unit: sets[0].Account.Unit}}
	var lines, shards []string
	for i, set := range sets {
		trains = append(trains, set.Train)
		if set.Test != nil {
			tests, of = append(tests, set.Test), append(of, paths[i])
		}
		all.Faults = append(all.Faults, set.Faults...)
		shards = append(shards, set.Info.Shards)
		all.stores = append(all.stores, set.stores...)
		all.Account.unite(set.Account)
		for line := range strings.SplitSeq(set.Announce, "\n") {
			if !slices.Contains(set.unknown, line) && !strings.HasPrefix(line, leftOutPrefix) {
				lines = append(lines, line)
			}
		}
	}
	names := make([][]string, len(sets)) // of the classes of each
	for i, d := range trains {
		names[i] = classIdentities(d)
	}
	classes := uniteClasses(names)
	train := newUnited(trains, classes)
	all.Train = train.dataset()
	if len(tests) > 0 {
		test := newUnited(tests, classes)
		all.unknown = test.strange(tests, of)
		all.Test = test.dataset()
	}
	digest := sha256.New()
	fmt.Fprintln(digest, "several")
	for i, set := range sets {
		fmt.Fprintf(digest, "%s %d %q\n", set.Info.Digest, set.Train.Len(), names[i])
	}
	lines = append(lines, strangers(paths, names)...)
	all.describe(fmt.Sprintf("%d data sets together", len(sets)), "", digest, append(lines, all.Account.notes()...)...)
	all.Info.Shards = strings.Join(strings.Fields(strings.Join(shards, " ")), " ")
	for _, set := range sets {
		if set.Info.JPEG != "" {
			all.Info.JPEG = set.Info.JPEG
		}
	}
	return all
}

// strangers says which sources have classes, and none that another source has too.
func strangers(paths []string, names [][]string) (notes []string) {
	count := make(map[string]int)
	labelled := 0
	for _, list := range names {
		for _, name := range list {
			count[name]++
		}
		if len(list) > 0 {
			labelled++
		}
	}
	for i, list := range names {
		if labelled > 1 && len(list) > 0 && !slices.ContainsFunc(list, func(name string) bool { return count[name] > 1 }) {
			notes = append(notes, fmt.Sprintf("none of the classes of %s, such as %s, is one of the other data sets'", paths[i], list[0]))
		}
	}
	return notes
}

// uniteClasses are the names of the classes of all sources, sorted; numbers by their
// value.
func uniteClasses(names [][]string) []string {
	classes := slices.Concat(names...)
	slices.Sort(classes)
	classes = slices.Compact(classes)
	sortClasses(classes)
	return classes
}

// classIdentities are what the classes of a source are told apart by beside other
// sources: their names, where each has one of its own, else the numbers in its labels.
func classIdentities(d Dataset) []string {
	if t, is := d.(*tarSplit); is && !t.named() {
		return t.names
	}
	names := make([]string, d.Classes())
	for c := range names {
		names[c] = norm.NFC.String(className(d, c))
	}
	return names
}

// named says whether each class has a name of its own in .json.
func (s *tarSplit) named() bool {
	seen := make(map[string]bool)
	for _, name := range s.shown {
		if name == "" || seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

// united is the samples of several data sets, one behind the other.
type united struct {
	parts   []Dataset
	first   []int // sample of each part
	labels  []int32
	classes []string
}

func newUnited(parts []Dataset, classes []string) *united {
	u := &united{parts: parts, classes: classes}
	at := make(map[string]int32, len(classes))
	for c, name := range classes {
		at[name] = int32(c)
	}
	for _, d := range parts {
		u.first = append(u.first, len(u.labels))
		names := classIdentities(d)
		for i := range d.Len() {
			label := int32(-1)
			if l := d.Label(i); l >= 0 {
				label = at[names[l]]
			} else if s, is := d.(stranger); is { // the other sources may know its class
				if l, known := at[s.strange(i)]; known {
					label = l
				}
			}
			u.labels = append(u.labels, label)
		}
	}
	return u
}

// stranger is a test split with labels that no training image of its own source has.
type stranger interface {
	// strange is the class of a sample whose label is −1, "" when it has none.
	strange(i int) string
}

// strange says of which samples of test splits no training image has the class.
func (u *united) strange(tests []Dataset, paths []string) (notes []string) {
	for p, d := range tests {
		s, is := d.(stranger)
		if !is {
			continue
		}
		counts := make(map[string]int)
		for i := range d.Len() {
			if name := s.strange(i); u.labels[u.first[p]+i] < 0 && name != "" {
				counts[name]++
			}
		}
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			notes = append(notes, fmt.Sprintf("class %s of the test split of %s has no training images: its %s as unknown", name, paths[p], plural(counts[name], "image counts", "images count")))
		}
	}
	return notes
}

// dataset is u, Encoded where all parts are.
func (u *united) dataset() Dataset {
	for _, d := range u.parts {
		if _, is := d.(Encoded); !is {
			return u
		}
	}
	return unitedFiles{u}
}

// part is the number of the data set that sample i comes from.
func (u *united) part(i int) int {
	return sort.Search(len(u.first), func(p int) bool { return u.first[p] > i }) - 1
}

// source is where sample i comes from.
func (u *united) source(i int) (Dataset, int) {
	p := u.part(i)
	return u.parts[p], i - u.first[p]
}

func (u *united) Len() int                   { return len(u.labels) }
func (u *united) Classes() int               { return len(u.classes) }
func (u *united) Label(i int) int32          { return u.labels[i] }
func (u *united) ClassName(class int) string { return u.classes[class] }

func (u *united) Path(i int) string {
	d, at := u.source(i)
	return d.Path(at)
}

// Decode is that of the source.
func (u *united) Decode(i int, d *Decoder) (*augment.Image, error) {
	from, at := u.source(i)
	return from.Decode(at, d)
}

// unitedFiles is united of image files.
type unitedFiles struct{ *united }

// Name is the sample's name in its source, behind the source's number from 1 on.
func (u unitedFiles) Name(i int) string {
	d, at := u.source(i)
	return fmt.Sprintf("%d/%s", u.part(i)+1, d.(Encoded).Name(at))
}

func (u unitedFiles) Content(i int, d *Decoder) ([]byte, error) {
	from, at := u.source(i)
	return from.(Encoded).Content(at, d)
}

// Size is that in its source; 0 where it is not known.
func (u unitedFiles) Size(i int) int64 {
	from, at := u.source(i)
	if s, is := from.(Sized); is {
		return s.Size(at)
	}
	return 0
}

// File is the data set of image files that sample i of d comes from, with its place
// there; ok is false where the sample is no file. Of several sources some may have files.
func File(d Dataset, i int) (files Encoded, at int, ok bool) {
	for {
		if e, is := d.(Encoded); is {
			return e, i, true
		}
		from, is := d.(interface{ source(i int) (Dataset, int) })
		if !is {
			return nil, 0, false
		}
		d, i = from.source(i)
	}
}
