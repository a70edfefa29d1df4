package data

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"mochi/replica/data/naming"
	"mochi/replica/data/shards"
)

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

// splitFolders finds the splits among the folders of a tar file, by their names, and
// the classes below.
func splitFolders(list []indexed) (train, test []indexed, notes []string, err error) {
	stripFolders(list)
	top := make(map[string]bool)
	for _, s := range list {
		top[s.class] = true
	}
	delete(top, "")
	trainName, testName, other, err := naming.Splits(slices.Sorted(maps.Keys(top)))
	if err != nil || trainName == "" || testName == "" && !slices.ContainsFunc(list, func(s indexed) bool {
		return s.class == trainName && strings.Count(s.path, "/") > 1
	}) {
		return list, nil, nil, err
	}
	if trainName != "train" || len(other) > 0 {
		note := "training split: " + trainName
		if testName != "" {
			note += ", test split: " + testName
		}
		if len(other) > 0 {
			note += " (not " + strings.Join(other, ", ") + ")"
		}
		notes = append(notes, note)
	}
	for _, s := range list {
		first, rest, _ := strings.Cut(s.path, "/")
		s.path, s.class = rest, ""
		if class, _, inFolder := strings.Cut(rest, "/"); inFolder {
			s.class = class
		}
		switch {
		case first == trainName:
			train = append(train, s)
		case first == testName && testName != "":
			test = append(test, s)
		}
	}
	return train, test, notes, nil
}

// classesOfShards are the names of the classes that samples have, sorted; numbers by
// their value.
func classesOfShards(list []indexed) (names []string) {
	seen := make(map[string]bool)
	for _, s := range list {
		if s.class != "" && !seen[s.class] {
			seen[s.class] = true
			names = append(names, s.class)
		}
	}
	if folderClasses(list) {
		slices.Sort(names)
	} else {
		sortClasses(names)
	}
	return names
}

// sortClasses sorts the names of classes: if all are numbers by these, 9 before 10.
func sortClasses(names []string) {
	slices.Sort(names)
	for _, name := range names {
		if _, number := shards.Number(name); !number {
			return
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		x, _ := shards.Number(a)
		y, _ := shards.Number(b)
		return cmp.Compare(x, y)
	})
}

// folderClasses says whether the classes are folders: their names are no
// numbers then, whatever they look like.
func folderClasses(list []indexed) bool {
	return slices.ContainsFunc(list, func(s indexed) bool { return s.class != "" && s.Class == "" })
}

// shownNames are the names that .json members give to classes; "" for none.
func shownNames(scanned []*shards.Shard, classes []string) []string {
	shown := make([]string, len(classes))
	for _, s := range scanned {
		for i, class := range classes {
			if shown[i] == "" {
				shown[i] = norm.NFC.String(s.Names[class])
			}
		}
	}
	return shown
}
