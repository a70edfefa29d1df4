package quorum

import (
	"fmt"
	"sync"
	"time"
)

// How long a write may take: from the first on, and where it may grow to.
const (
	writeLimit     = 5 * time.Second
	writeLimitMost = time.Minute
)

// limit is how long a write may take. It doubles whenever it was too short, so that a
// group whose disks are all slow gets on in the end, and goes back when writes are fast.
type limit struct {
	mu sync.Mutex
	at time.Duration
}

func newLimit() *limit { return &limit{at: writeLimit} }

func (l *limit) now() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func (l *limit) exceeded(after time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = min(2*l.at, writeLimitMost)
	return fmt.Errorf("%w within %.1f s", errSlow, after.Seconds())
}

func (l *limit) kept(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took < writeLimit/10 {
		l.at = writeLimit
	}
}
