package data

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/text/unicode/norm"

	"mochi/replica/data/lists"
	"mochi/replica/data/naming"
)

// namedSplit is the images that a list names: those of a folder, with classes that the
// list gives. Their order is that of folders, by class and path.
type namedSplit struct{ folderSplit }

// openList opens the images that a list names. Its test split is what a column of it
// says, or the list of a test split beside it.
func openList(path string, o Options) (*Set, error) {
	path = filepath.Clean(path) // as the files are found beside it
	l, err := lists.ReadFile(path)
	if err != nil {
		return nil, err
	}
	in := listing{root: filepath.Dir(path), o: o, account: Account{Unit: "lines of lists, and files beside them,"}}
	train, test, notes, err := in.splitsOf(path, l)
	if err != nil {
		return nil, err
	}
	read := []string{path}
	in.badLines(path, l.Bad)
	if !l.Splits {
		names, err := files(in.root)
		if err != nil {
			return nil, err
		}
		if beside := naming.Beside(filepath.Base(path), names); beside != "" {
			beside = filepath.Join(in.root, beside)
			l, err := lists.ReadFile(beside)
			if err != nil {
				return nil, err
			}
			in.badLines(beside, l.Bad)
			test, read = named{list: beside, entries: l.Entries}, append(read, beside)
			notes = append(notes, "test split: "+beside)
		}
	}
	set := &Set{Kind: "list", bounds: o.bounds}
	lines := len(train.entries) + len(test.entries)
	seen := make(map[string]bool, lines)
	trained, err := in.resolve(train, seen)
	if err != nil {
		return nil, err
	}
	tested, err := in.resolve(test, seen)
	switch {
	case err != nil:
		return nil, err
	case len(trained.samples) == 0:
		return nil, fmt.Errorf("%s: none of the %s that it names can be used: %s", path, plural(len(train.entries), "image", "images"), strings.Join(in.account.notes(), "; "))
	}
	set.Train = trained
	if len(tested.samples) > 0 {
		set.unknown = tested.relabel(trained.classes)
		set.Test = tested
	}
	for _, f := range in.faults[:min(len(in.faults), shownFaults)] {
		notes = append(notes, fmt.Sprintf("left out: %s cannot be read: %v", f.Path, f.Err))
	}
	in.account.used(len(trained.samples), len(tested.samples), len(read))
	in.account.Found, in.account.Faults = in.account.Found+len(in.faults), len(in.faults)
	if odd := odd(train, test); odd != "" {
		notes = append(notes, odd)
	}
	if len(trained.classes) == 1 {
		notes = append(notes, fmt.Sprintf("the only class is %s: kNN accuracy will say nothing", trained.classes[0]))
	}
	if o.CountAll {
		in.unlisted(seen, read)
	}
	set.Account, set.Faults = in.account, in.faults
	set.describe("list "+path, "", trained.digest(), append(notes, set.Account.notes()...)...)
	return set, nil
}

// named is what a list names for a split.
type named struct {
	list    string
	entries []lists.Entry
}

// splitsOf are the lines of a list for each split, where it has a column for them.
func (l *listing) splitsOf(path string, list *lists.List) (train, test named, notes []string, err error) {
	train.list, test.list = path, path
	if !list.Splits {
		train.entries = list.Entries
		return train, test, nil, nil
	}
	words := make(map[string]string) // of what stands there
	of := make(map[string]int)
	for _, e := range list.Entries {
		word, known := words[e.Split]
		if !known {
			word = naming.Split(e.Split)
			words[e.Split] = word
		}
		of[word]++
	}
	chosen := ""
	for _, word := range naming.TestWords {
		if of[word] > 0 && chosen == "" {
			chosen = word
		}
	}
	for _, e := range list.Entries {
		switch word := words[e.Split]; {
		case slices.Contains(naming.TrainWords, word):
			train.entries = append(train.entries, e)
		case word == chosen && word != "":
			test.entries = append(test.entries, e)
		default:
			l.account.leave(naming.OtherPart, 1, 0, train.at(e))
		}
	}
	if len(train.entries) == 0 {
		return train, test, nil, fmt.Errorf("%s: its column of splits says %q, and of no line that it is of the training split (train, training)", path, list.Entries[0].Split)
	}
	return train, test, []string{fmt.Sprintf("splits as its column says: %s for training, %s for tests (%s)", plural(len(train.entries), "line", "lines"), plural(len(test.entries), "line", "lines"), cmp.Or(chosen, "none"))}, nil
}

// at names a line for people.
func (n named) at(e lists.Entry) string { return fmt.Sprintf("%s:%d: %s", n.list, e.Line, e.Path) }

func (l *listing) badLines(list string, lines []int) {
	if len(lines) > 0 {
		l.account.leave(naming.BadLine, len(lines), 0, fmt.Sprintf("%s:%d", list, lines[0]))
	}
}

// odd says which labels are not understood, "" for none.
func odd(splits ...named) string {
	n, first := 0, ""
	for _, s := range splits {
		for _, e := range s.entries {
			if e.Odd {
				if n++; n == 1 {
					first = s.at(e)
				}
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s not understood, such as that of %s: their images count as unlabelled", plural(n, "label is", "labels are"), first)
}

// resolve finds the images that a list names for a split. seen takes in their names in
// the folder.
func (l *listing) resolve(n named, seen map[string]bool) (*namedSplit, error) {
	s := &namedSplit{folderSplit{dir: l.root, bounds: l.o.bounds}}
	looked, err := l.lookAll(n)
	if err != nil {
		return nil, err
	}
	first := make(map[string]string, len(looked)) // the class of each path
	classes := make(map[string]bool)
	var of []string
	for i, found := range looked {
		e := n.entries[i]
		if found.name != "" {
			seen[found.name] = true
		}
		class := norm.NFC.String(e.Class)
		before, again := first[found.name]
		switch {
		case found.fault != nil:
			l.faults = append(l.faults, found.fault)
		case found.why != "":
			l.account.leave(found.why, 1, 0, n.at(e))
		case again && before == class:
			l.account.leave(naming.Doubled, 1, 0, n.at(e))
		case again:
			l.account.leave(naming.Contrary, 1, 0, n.at(e))
		default:
			first[found.name] = class
			if class != "" {
				classes[class] = true
			}
			s.samples, of = append(s.samples, sampleFile{path: found.name, size: found.size}), append(of, class)
		}
	}
	s.number(classes, of)
	return s, nil
}

// number gives the samples the numbers of their classes, and sorts them.
func (s *namedSplit) number(classes map[string]bool, of []string) {
	s.classes = slices.Collect(maps.Keys(classes))
	sortClasses(s.classes)
	at := make(map[string]int32, len(s.classes))
	for i, name := range s.classes {
		at[name] = int32(i)
	}
	for i, class := range of {
		s.samples[i].class = -1
		if class != "" {
			s.samples[i].class = at[class]
		}
	}
	sortByName(s.samples)
	slices.SortStableFunc(s.samples, func(a, b sampleFile) int { return cmp.Compare(a.class, b.class) })
}

// lookedUp is what was found of a line.
type lookedUp struct {
	name  string // in the folder, with slashes; "" where it is in none
	size  int64
	why   Reason
	fault *CorruptError
}

// lookAll looks for the images of all lines, several at a time.
func (l *listing) lookAll(n named) ([]lookedUp, error) {
	root, err := filepath.Abs(l.root)
	if err != nil {
		return nil, err
	}
	out := make([]lookedUp, len(n.entries))
	const piece = 1000
	var done atomic.Int64
	var group errgroup.Group
	group.SetLimit(readers)
	for from := 0; from < len(out); from += piece {
		to := min(from+piece, len(out))
		group.Go(func() error {
			for i := from; i < to; i++ {
				var err error
				if out[i], err = l.lookUp(root, n.entries[i].Path); err != nil {
					return err
				}
			}
			l.o.progress("looked for %s of %s", count(int(done.Add(int64(to-from)))), plural(len(out), "image", "images"))
			return nil
		})
	}
	return out, group.Wait()
}

// lookUp finds what a line names: a file in the list's folder. root is that folder,
// absolute.
func (l *listing) lookUp(root, written string) (f lookedUp, err error) {
	var info os.FileInfo
	for _, form := range forms(written) {
		if f.name, err = within(root, form); err != nil {
			return lookedUp{why: naming.Outside}, nil
		}
		if info, err = os.Stat(l.full(f.name)); err == nil || !absent(err) {
			break
		}
	}
	full := l.full(f.name)
	switch {
	case absent(err):
		f.why = naming.Missing
	case err != nil:
		if err := fileFault(full, err); !errors.As(err, &f.fault) {
			return f, err
		}
	case !info.Mode().IsRegular():
		f.why = naming.Special
	default:
		f.size, f.why = info.Size(), kindOfFile(full, info.Size())
	}
	return f, nil
}

// absent says whether there is no file of a name, nor can be.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ELOOP)
}

// forms are the ways in which a file's name may be meant: as it stands, with its letters
// composed or taken apart, with the slashes of Windows.
func forms(written string) []string {
	all := []string{written}
	if c := norm.NFC.String(written); c != written {
		all = append(all, c)
	}
	if d := norm.NFD.String(written); d != written {
		all = append(all, d)
	}
	if strings.Contains(written, `\`) {
		all = append(all, forms(strings.ReplaceAll(written, `\`, "/"))...)
	}
	return all
}

// within is a path that is written in a list, relative to the list's folder root; an
// error where it leads out of it.
func within(root, written string) (string, error) {
	if filepath.IsAbs(written) {
		rel, err := filepath.Rel(root, written)
		if err != nil {
			return "", err
		}
		written = rel
	}
	clean := filepath.Clean(written)
	if !filepath.IsLocal(clean) || clean == "." {
		return "", errors.New("it leads out of the folder")
	}
	return filepath.ToSlash(clean), nil
}

// unlisted counts what lies in the list's folder and is not named.
func (l *listing) unlisted(seen map[string]bool, read []string) {
	_ = filepath.WalkDir(l.root, func(p string, d fs.DirEntry, err error) error { // what cannot be read is not named either
		rel, relErr := filepath.Rel(l.root, p)
		if err != nil || relErr != nil || d.IsDir() || seen[filepath.ToSlash(rel)] || slices.Contains(read, p) {
			return nil
		}
		l.account.leave(naming.Unlisted, 1, 0, p)
		return nil
	})
}

// digest is of the listing: names, sizes and classes.
func (s *namedSplit) digest() hash.Hash {
	h := sha256.New()
	io.WriteString(h, "list\n")
	for _, f := range s.samples {
		class := ""
		if f.class >= 0 {
			class = s.classes[f.class]
		}
		fmt.Fprintf(h, "%s\x00%d\x00%s\n", norm.NFC.String(f.path), f.size, class)
	}
	return h
}
