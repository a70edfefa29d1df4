// Package shards reads and writes WebDataset shards: tar files whose members
// of one key (the name up to the first dot of its last part) are one sample,
// such as 000042.jpg, 000042.cls and 000042.json (Aizman et al. 2019).
//
// Expand turns 'PREFIX-{000..009}.tar', globs and lists into file names; Scan
// is one pass over a shard's headers, which gives the position of every image,
// so that Files can read any of them with one pread later; Pack writes shards.
//
// Cost: scanning reads 512 bytes a member and seeks over the rest (a shard of
// 10,000 samples of an image and a class takes some 50 ms from a warm disk);
// an index entry is some 60 bytes and the key. Nothing is cached on disk.
package shards

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Suffix is how the names of shards end that Pack writes.
const Suffix = ".tar"

// suffixes are how the names of shards end; those of packed ones, too.
var suffixes = []string{Suffix, ".tar.gz", ".tgz", ".parquet"}

// SuffixOf is how the name of a shard ends, "" when it is the name of none.
func SuffixOf(path string) string {
	for _, s := range suffixes {
		if strings.HasSuffix(path, s) {
			return s
		}
	}
	return ""
}

// maxNames bounds what braces may expand to.
const maxNames = 1_000_000

// IsPattern says whether a data path names shards rather than a folder.
func IsPattern(path string) bool {
	return SuffixOf(path) != "" && !isFolder(path)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Expand returns the existing shards that a pattern names, sorted and each
// once. {000..009} counts with the zeros of its first number, {000..} for as
// long as there are files, {a,b} lists, and *, ? and [] match as in a shell. A
// file that is named without them must exist.
func Expand(pattern string) ([]string, error) {
	words, err := braces(pattern, countFiles)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	var found, missing []string
	for _, word := range words {
		if _, err := os.Lstat(word); err == nil || !strings.ContainsAny(word, "*?[") {
			if err == nil {
				found = append(found, filepath.Clean(word))
			} else {
				missing = append(missing, word)
			}
			continue
		}
		matches, err := filepath.Glob(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
		if len(matches) == 0 {
			missing = append(missing, word)
		}
		found = append(found, matches...)
	}
	switch {
	case len(missing) > 0 && len(words) == 1:
		return nil, fmt.Errorf("no such file: %s: %w", missing[0], fs.ErrNotExist)
	case len(missing) > 0:
		return nil, fmt.Errorf("%d of the %d files it names do not exist, such as %s: %w", len(missing), len(words), missing[0], fs.ErrNotExist)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Braces expands {000..009} and {a,b} of a pattern whose files cannot be looked for.
func Braces(pattern string) ([]string, error) {
	return braces(pattern, func(_, first, _ string) ([]string, error) {
		return nil, fmt.Errorf("{%s..} without its last number: how many there are cannot be looked up; say it", first)
	})
}

// braces expands the braces of a pattern, the first one first; {000..} by up.
func braces(pattern string, up func(before, first, after string) ([]string, error)) ([]string, error) {
	before, rest, found := strings.Cut(pattern, "{")
	if !found {
		return []string{pattern}, nil
	}
	inside, after, found := strings.Cut(rest, "}")
	if !found {
		return nil, errors.New("a { without its }")
	}
	if first, open := strings.CutSuffix(inside, ".."); open {
		return up(before, first, after)
	}
	var words []string
	if first, last, isRange := strings.Cut(inside, ".."); isRange {
		from, errFrom := strconv.ParseUint(first, 10, 32)
		to, errTo := strconv.ParseUint(last, 10, 32)
		if errFrom != nil || errTo != nil || to < from {
			return nil, fmt.Errorf("{%s} is not of the form {000..009}", inside)
		}
		if to-from >= maxNames {
			return nil, fmt.Errorf("{%s} names more than %d files", inside, maxNames)
		}
		for n := from; n <= to; n++ {
			words = append(words, fmt.Sprintf("%0*d", len(first), n))
		}
	} else {
		words = strings.Split(inside, ",")
	}
	var all []string
	for _, word := range words {
		more, err := braces(before+word+after, up)
		if err != nil {
			return nil, err
		}
		if all = append(all, more...); len(all) > maxNames {
			return nil, fmt.Errorf("it names more than %d files", maxNames)
		}
	}
	return all, nil
}

// countFiles expands {000..}: from the first number for as long as files exist.
// What Pack has written with more digits, because there are so many shards,
// is found too.
func countFiles(before, first, after string) ([]string, error) {
	from, err := strconv.ParseUint(first, 10, 32)
	if err != nil || strings.Contains(after, "{") {
		return nil, fmt.Errorf("{%s..} is not of the form {000..}", first)
	}
	for width := len(first); width <= 9; width++ {
		var names []string
		for n := from; len(names) < maxNames; n++ {
			name := fmt.Sprintf("%s%0*d%s", before, width, n, after)
			if _, err := os.Lstat(name); err != nil {
				break
			}
			names = append(names, name)
		}
		if len(names) > 0 {
			return names, nil
		}
	}
	return []string{before + first + after}, nil // does not exist, and is named
}

// Beside finds the shards of another split beside those of a pattern: with
// train in the file's name replaced by the split's, and any numbers. None is
// no error.
func Beside(pattern, split string) []string {
	dir, base := filepath.Split(pattern)
	at := strings.LastIndex(base, "train")
	if at < 0 {
		return nil
	}
	base = base[:at] + split + base[at+len("train"):]
	for {
		before, rest, open := strings.Cut(base, "{")
		_, after, closed := strings.Cut(rest, "}")
		if !open || !closed {
			break
		}
		base = before + "*" + after
	}
	if !strings.Contains(base, "*") { // a single shard: train-000.tar
		suffix := SuffixOf(base)
		digits := strings.TrimRight(strings.TrimSuffix(base, suffix), "0123456789")
		if digits+suffix != base {
			base = digits + "*" + suffix
		}
	}
	found, err := filepath.Glob(quoteGlob(dir) + base)
	if err != nil {
		return nil
	}
	slices.Sort(found)
	return found
}

// quoteGlob makes a folder's name match itself only.
func quoteGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}
