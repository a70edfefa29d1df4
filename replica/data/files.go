package data

import (
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// readers is how many folders or shards are read at a time when a data set is
// opened: network file systems answer in parallel.
const readers = 8

// shownFaults is how many faults are told one by one; then they are counted.
const shownFaults = 5

// files lists the plain files of a folder, sorted, hidden ones left out.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}
