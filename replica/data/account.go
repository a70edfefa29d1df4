package data

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"mochi/replica/data/naming"
)

// Reason says why a file is no part of a data set.
type Reason = naming.Reason

// Account says what became of everything that was found. Found is the sum of Train,
// Test, Read, Faults and the files of Left.
type Account struct {
	Found  int       `json:"found"`
	Unit   string    `json:"unit"`  // what is counted: files, or members (of shards)
	Train  int       `json:"train"` // images of the training split
	Test   int       `json:"test"`
	Read   int       `json:"read"`   // files that hold labels, or many samples
	Faults int       `json:"faults"` // files and folders that cannot be read
	Left   []LeftOut `json:"left_out"`
}

// LeftOut counts what was left out for a reason.
type LeftOut struct {
	Reason  Reason `json:"reason"`
	Files   int    `json:"files"`
	Folders int    `json:"folders,omitempty"` // that were not looked into: their files are not counted (see Options.CountAll)
	Example string `json:"example"`
	Ruled   bool   `json:"ruled"` // docs/data.md says so
}

// leave counts files and folders that are left out; the first one is the example.
func (a *Account) leave(why Reason, files, folders int, example string) {
	if files+folders == 0 {
		return
	}
	a.Found += files
	for i := range a.Left {
		if l := &a.Left[i]; l.Reason == why {
			l.Files, l.Folders = l.Files+files, l.Folders+folders
			return
		}
	}
	a.Left = append(a.Left, LeftOut{Reason: why, Files: files, Folders: folders, Example: example, Ruled: why != naming.Unknown})
}

// used counts what is part of the data set.
func (a *Account) used(train, test, read int) {
	a.Train, a.Test, a.Read = a.Train+train, a.Test+test, a.Read+read
	a.Found += train + test + read
}

// add takes in what another account has left out.
func (a *Account) add(b Account) {
	for _, l := range b.Left {
		a.leave(l.Reason, l.Files, l.Folders, l.Example)
	}
}

// unite takes in all of another account.
func (a *Account) unite(b Account) {
	if a.Unit != b.Unit {
		a.Unit = "files, members and lines"
	}
	a.used(b.Train, b.Test, b.Read)
	a.Faults, a.Found = a.Faults+b.Faults, a.Found+b.Faults
	a.add(b)
}

// Unruled is how many files were left out for no reason that the documentation has.
func (a *Account) Unruled() (n int) {
	for _, l := range a.Left {
		if !l.Ruled {
			n += l.Files
		}
	}
	return n
}

// leftOutPrefix begins the lines of what was left out.
const leftOutPrefix = "left out: "

// String is the short form: what was left out, a line a reason, the most first.
func (l LeftOut) String() string {
	what := ""
	switch {
	case l.Folders == 0:
		what = plural(l.Files, "file", "files")
	case l.Files == 0:
		what = plural(l.Folders, "folder", "folders")
	default:
		what = plural(l.Files, "file", "files") + " and " + plural(l.Folders, "folder", "folders")
	}
	return fmt.Sprintf(leftOutPrefix+"%s, %s, such as %s", what, l.Reason, l.Example)
}

// Sum says how the count of what was found comes about.
func (a *Account) Sum() string {
	left := 0
	for _, l := range a.Left {
		left += l.Files
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{a.Train, "for training"}, {a.Test, "for tests"}, {a.Read, "with labels or many images"}, {a.Faults, "that cannot be read"}, {left, "left out"}} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", count(part.n), part.what))
		}
	}
	return fmt.Sprintf("%s found: %s = %s", a.Unit, count(a.Found), strings.Join(parts, " + "))
}

// Verdict says in words what a data set is good for: what is trained on, what is
// evaluated on, and what is left out and why. badTrain and badTest are how many
// images of the splits cannot be decoded, as far as that is known.
func (s *Set) Verdict(badTrain, badTest int) []string {
	classes := "no classes"
	if n := s.Train.Classes(); n > 0 {
		classes = plural(n, "class", "classes")
		if without := s.Train.Len() - labelledOf(s.Train); without > 0 {
			classes += fmt.Sprintf(" (%s without one)", plural(without, "image", "images"))
		}
	}
	train := fmt.Sprintf("trained on: %s, %s", plural(s.Train.Len()-badTrain, "image", "images"), classes)
	if badTrain > 0 {
		train += fmt.Sprintf("; instead of %s that cannot be decoded, others of them once more", count(badTrain))
	}
	lines := []string{train}
	if why := s.NoKNN(); why != "" {
		lines = append(lines, "evaluated on: nothing, since "+why)
	} else {
		known := labelledOf(s.Test)
		text := "evaluated on: " + plural(s.Test.Len()-badTest, "image", "images")
		if n := s.Test.Len() - known; n > 0 {
			text += fmt.Sprintf(", of which %s no class of the training images and not counted", plural(n, "is of", "are of"))
		}
		if badTest > 0 {
			text += fmt.Sprintf("; not on %s that cannot be decoded", count(badTest))
		}
		lines = append(lines, text)
	}
	if len(s.Account.Left) == 0 {
		lines = append(lines, "left out: nothing")
	}
	return append(append(lines, s.Account.notes()...), s.Account.Sum())
}

// labelledOf is how many samples have a class.
func labelledOf(d Dataset) (n int) {
	for i := range d.Len() {
		if d.Label(i) >= 0 {
			n++
		}
	}
	return n
}

// notes says it to people.
func (a *Account) notes() (notes []string) {
	slices.SortStableFunc(a.Left, func(x, y LeftOut) int { return cmp.Compare(y.Files+y.Folders, x.Files+x.Folders) })
	for _, l := range a.Left {
		notes = append(notes, l.String())
	}
	return notes
}
