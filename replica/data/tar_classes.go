package data

import (
	"slices"
	"strings"

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
