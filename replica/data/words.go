package data

import (
	"fmt"

	"mochi/replica/data/remote"
)

// count writes a number with thousands separated, as people read it.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 class", "10 classes".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// Bytes is a number of bytes as people read it.
func Bytes(n int64) string { return remote.Bytes(n) }
