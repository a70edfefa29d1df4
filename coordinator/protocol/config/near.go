package config

import (
	"fmt"
	"strings"
)

// didYouMean suggests the nearest name, or nothing when none is near.
func didYouMean(name string, names []string) string {
	near := Nearest(name, names)
	if near == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", near)
}

// Nearest is the one of names that name is most likely a misspelling of, "" when
// none is near.
func Nearest(name string, names []string) string {
	plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best, distance := "", max(2, len(name)/3)+1
	if len(name) < 4 { // of a short one little must be left
		distance = (len(name) + 1) / 2
	}
	for _, n := range names {
		if d := editDistance(plain, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// editDistance is Levenshtein's: insertions, deletions and substitutions.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
