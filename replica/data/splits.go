package data

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mochi/replica/data/naming"
)

// layout is where the splits of a folder are.
type layout struct {
	dir         string
	train, test string   // folders; test "" for none
	notes       []string // what was chosen
}

// findSplits finds the training and the test folder. A folder train is taken for the
// training split when a test split lies beside it or when it has folders of its own;
// otherwise it is a class like any other.
func findSplits(dir string) (l layout, found bool, err error) {
	l = layout{dir: dir, train: dir}
	names, err := subfolders(dir)
	if err != nil {
		return l, false, err
	}
	train, test, other, err := naming.Splits(names)
	if err != nil {
		return l, false, fmt.Errorf("%s: %w", dir, err)
	}
	if train == "" && test == "" {
		return l, false, nil
	}
	if train == "" {
		if inner, err := subfolders(filepath.Join(dir, test)); err == nil && len(inner) > 0 && len(names) == 1+len(other) {
			return l, false, fmt.Errorf("%s: has %s, but no folder train beside it", dir, test)
		}
		return l, false, nil // a class like any other
	}
	if inner, err := subfolders(filepath.Join(dir, train)); test == "" && (err != nil || len(inner) == 0) {
		return l, false, nil
	}
	l.train = filepath.Join(dir, train)
	if test != "" {
		l.test = filepath.Join(dir, test)
	}
	if train != "train" || test != "" && test != "val" && test != "test" || len(other) > 0 {
		note := "training split: " + train
		if test != "" {
			note += ", test split: " + test
		}
		if len(other) > 0 {
			note += fmt.Sprintf(" (not %s)", strings.Join(other, ", "))
		}
		l.notes = append(l.notes, note)
	}
	return l, true, nil
}

// deepest is how many folders down splits are looked for, below the one given.
const deepest = 4

// findLayout is findSplits of a folder, or of the only one in it, as archives unpack:
// a folder in which nothing else is, and that holds splits or several folders.
func findLayout(dir string) (l layout, passed []string, err error) {
	for range deepest {
		var found bool
		if l, found, err = findSplits(dir); err != nil || found {
			return l, passed, err
		}
		names, err := subfolders(dir)
		if err != nil || len(names) != 1 || hasImages(dir) {
			return l, passed, err
		}
		inner := filepath.Join(dir, names[0])
		below, err := subfolders(inner)
		if err != nil || hasImages(inner) || len(below) == 0 || encloses(inner, dir) {
			return l, passed, nil
		}
		if _, splits, err := findSplits(inner); err == nil && !splits && len(below) < 2 {
			if deeper, err := subfolders(filepath.Join(inner, below[0])); err != nil || len(deeper) == 0 {
				return l, passed, nil
			}
		}
		passed, dir = append(passed, dir), inner
	}
	return l, passed, nil
}

// subfolders are the folders in a folder, and links to such, that may hold images,
// sorted.
func subfolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if naming.Skipped(e.Name()) != "" {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// hasImages says whether images lie in a folder itself.
func hasImages(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !e.IsDir() && naming.Skipped(e.Name()) == "" && naming.IsImage(e.Name())
	})
}
