package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Count is "1 replica", "2 replicas".
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Plural is "1 image is", "2 images are".
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Occasionally shows every text that comes two seconds or more after the one
// before; what is done sooner shows nothing.
func Occasionally(w io.Writer) func(text string) {
	var mu sync.Mutex
	last := time.Now()
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) >= 2*time.Second {
			last = time.Now()
			fmt.Fprintln(w, text)
		}
	}
}
