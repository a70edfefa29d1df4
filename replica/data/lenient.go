package data

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"mochi/model/splitmix"
	"mochi/replica/augment"
)

// How a lenient data set looks for a replacement: the next samples of the
// listing first, usually of the same class; then, since a whole shard or folder
// may be gone, samples from anywhere; and after so many it gives up.
const (
	nearReplacements = 16
	maxReplacements  = 1000
)

// Lenient is a Dataset whose Decode replaces a corrupt sample by another that
// can be decoded. Which one depends on the index and on which samples are
// corrupt, so every replica replaces alike. The label stays that of the corrupt
// sample; SameClass makes it that of the image too.
type Lenient struct {
	Dataset
	report    func(*CorruptError)
	strict    atomic.Bool
	sameClass atomic.Bool

	mu    sync.Mutex
	bad   map[int]*CorruptError
	paths []string // of bad, as found, each once
	known map[string]bool
}

// NewLenient wraps d. report, which may be nil, is called once for each path
// at fault (a file, or a shard with many samples), possibly from several
// goroutines at a time.
func NewLenient(d Dataset, report func(*CorruptError)) *Lenient {
	return &Lenient{Dataset: d, report: report, bad: make(map[int]*CorruptError), known: make(map[string]bool)}
}

// SetStrict makes a corrupt sample an error of Decode from now on.
func (l *Lenient) SetStrict() { l.strict.Store(true) }

// SameClass makes the replacement of a labelled sample one of the same class from now
// on, for what goes by labels; where there is none, Decode is an error.
func (l *Lenient) SameClass() { l.sameClass.Store(true) }

// Decode returns sample i or its replacement. An error that is no fault of
// the sample (no more file descriptors) is returned.
func (l *Lenient) Decode(i int, d *Decoder) (*augment.Image, error) {
	var last *CorruptError
	tries := min(l.Len(), maxReplacements)
	place, of := i, l.Len()
	var class []int32
	for try := range tries {
		if try == 1 && l.sameClass.Load() && l.Label(i) >= 0 {
			class, place = l.classmates(i)
			if of = len(class); of == 1 {
				break
			}
			tries = min(tries, of)
		}
		if try >= tries {
			break
		}
		j := candidate(place, try, of)
		if class != nil {
			j = int(class[j])
		}
		if last = l.fault(j); last != nil {
			if l.strict.Load() {
				return nil, fmt.Errorf("%w (--strict-data)", last)
			}
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
		if l.strict.Load() {
			return nil, fmt.Errorf("%w (--strict-data)", last)
		}
	}
	return nil, fmt.Errorf("no image to replace %s: %d samples in a row cannot be decoded, the last being %w", l.Path(i), tries, last)
}

// classmates are the samples of a sample's class, and its place among them.
func (l *Lenient) classmates(i int) (class []int32, place int) {
	want := l.Label(i)
	for j := range l.Len() {
		if l.Label(j) == want {
			if j == i {
				place = len(class)
			}
			class = append(class, int32(j))
		}
	}
	return class, place
}

// candidate is what stands for sample i of n at the given try; 0 is itself.
func candidate(i, try, n int) int {
	if try <= nearReplacements || n <= maxReplacements {
		return (i + try) % n
	}
	return int(splitmix.Mix(uint64(i)<<20+uint64(try)) % uint64(n))
}

// Corrupt lists the paths at fault met so far, as they were met.
func (l *Lenient) Corrupt() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.paths...)
}

// CorruptSamples is how many samples could not be decoded so far: more than
// paths where a shard is at fault.
func (l *Lenient) CorruptSamples() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.bad)
}

func (l *Lenient) fault(i int) *CorruptError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad[i]
}

func (l *Lenient) note(i int, err *CorruptError) {
	l.mu.Lock()
	l.bad[i] = err
	old := l.known[err.Path]
	if !old {
		l.known[err.Path] = true
		l.paths = append(l.paths, err.Path)
	}
	l.mu.Unlock()
	if !old && l.report != nil && !l.strict.Load() { // then an error says it
		l.report(err)
	}
}
