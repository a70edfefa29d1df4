package data

import (
	"errors"
	"fmt"
	"sync"

	"mochi/replica/augment"
)

// maxReplacements is how many samples in a row may be corrupt before a
// lenient data set gives up.
const maxReplacements = 1000

// Lenient is a Dataset whose Decode replaces a corrupt sample by the next one
// in the listing (after the last the first) that can be decoded: usually one
// of the same class, and a pure function of the index, so every replica
// replaces alike. The label stays that of the corrupt sample.
type Lenient struct {
	Dataset
	report func(*CorruptError)

	mu    sync.Mutex
	bad   map[int]*CorruptError
	paths []string // of bad, as found
}

// NewLenient wraps d. report, which may be nil, is called once for each
// corrupt sample, possibly from several goroutines at a time.
func NewLenient(d Dataset, report func(*CorruptError)) *Lenient {
	return &Lenient{Dataset: d, report: report, bad: make(map[int]*CorruptError)}
}

// Decode returns sample i or its replacement. An error that is no fault of
// the sample (a disk that fails, no more file descriptors) is returned.
func (l *Lenient) Decode(i int, d *Decoder) (*augment.Image, error) {
	var last *CorruptError
	for tries := range min(l.Len(), maxReplacements) {
		j := (i + tries) % l.Len()
		if last = l.known(j); last != nil {
			continue
		}
		img, err := l.Dataset.Decode(j, d)
		if err == nil {
			return img, nil
		}
		if !errors.As(err, &last) {
			return nil, err
		}
		l.note(j, last)
	}
	return nil, fmt.Errorf("no image to replace %s: %d samples in a row cannot be decoded, the last being %w",
		l.Path(i), min(l.Len(), maxReplacements), last)
}

// Corrupt lists the paths of the corrupt samples met so far, as they were
// met.
func (l *Lenient) Corrupt() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.paths...)
}

func (l *Lenient) known(i int) *CorruptError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad[i]
}

func (l *Lenient) note(i int, err *CorruptError) {
	l.mu.Lock()
	_, old := l.bad[i]
	if !old {
		l.bad[i] = err
		l.paths = append(l.paths, err.Path)
	}
	l.mu.Unlock()
	if !old && l.report != nil {
		l.report(err)
	}
}
