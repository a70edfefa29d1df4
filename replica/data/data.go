// Package data feeds a replica: it recognises a data set on disk, decodes its
// images, and loads the views of coming steps ahead of the engine.
//
// Open recognises IDX pairs (MNIST and relatives; LeCun et al.), CIFAR-10 and
// CIFAR-100 in their binary version (Krizhevsky 2009), folders of JPEG and PNG
// images, WebDataset shards (package shards) and lists of paths and classes (package
// lists) by their content; packed shards and Parquet files of images are unpacked once
// (packages unpacked, parquet). A sample's
// index is its position in the sorted listing of the training split, the same
// on every machine: by class folder and path; in shards by shard and key.
// Set.Info carries a digest that says so, of names, lengths and classes.
//
// Another format is a file of its own, with a function of type format and a
// Dataset of five methods, and its name in formats (open.go); cifar.go is the
// shortest example. Samples that are image files are Encoded besides. What
// cannot be decoded is a *CorruptError, what cannot even be listed one of
// Set.Faults.
//
// Every image becomes 8-bit RGB, as PIL's convert('RGB') has it, but for two
// rules of our own: EXIF orientation is applied, so that a photo is upright as
// its owner sees it (torchvision's loader ignores it), and 16 bits are cut to
// the upper 8 (PIL saturates 16-bit grey). Grey is replicated, alpha dropped
// without blending, a palette looked up, CMYK multiplied by its black. Content
// decides what a file is, not its name. An image of more than Options.MaxPixels,
// a file of more than Options.MaxBytes, and a JPEG file whose scans would keep a
// decoder busy are refused by their headers, before memory is spent on them; and
// all decoders of a data set share a budget (limits.go).
//
// A fault is not fatal unless the data is strict (--strict-data). What cannot
// be listed when the data set is opened (an unreadable folder, a link in a
// circle, the rest of a shard that is cut short) is a fault of the Set. What
// turns out later (a file that is corrupt, empty, too large or gone, a shard
// that was exchanged) is counted, reported once by path, and replaced by
// another sample, on every replica the same: see Lenient.
//
// Loader decodes and augments on its own goroutines, at most Depth steps
// ahead, and reports how long the engine waited for it. On the engine's cores
// (LoaderConfig.BesideEngine) no more of them work than are needed: see crew.go.
//
// Cost: IDX and CIFAR data are held in memory as they are on disk (47 MB for
// Fashion-MNIST, 184 MB for CIFAR-10); a folder or shards cost their listing,
// some 100 bytes an image. A decoder needs 4 to 23 bytes a pixel of the image
// in hand. `mochi bench input` measures the loader.
package data

import (
	"fmt"
	"maps"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/replica/augment"
	"mochi/replica/data/remote"
	"mochi/replica/data/sampler"
)

// Ref is one draw of a sample (see package sampler).
type Ref = sampler.Ref

// Dataset is one split. It is safe for concurrent use.
type Dataset interface {
	// Len is the number of samples, at least 1.
	Len() int
	// Classes is the number of classes, 0 when unlabelled.
	Classes() int
	// Label is sample i's class, in [0, Classes), or −1 where unknown.
	Label(i int) int32
	// Path names sample i for people: a file, or a file and a position.
	Path(i int) string
	// Decode returns sample i, decoded by d; the image is d's until its next
	// call. The error is a *CorruptError where the sample itself is at fault.
	Decode(i int, d *Decoder) (*augment.Image, error)
}

// Set is a data set with its splits.
type Set struct {
	Train    Dataset
	Test     Dataset       // nil when there is none
	Kind     string        // the name of its format, such as idx or folder
	Announce string        // what was recognised, for people; may have several lines
	Info     protocol.Data // identifies the training split
	Account  Account       // what became of all that was found

	// Faults are what could not be read when the data set was opened: a
	// folder, the end of a shard. What they hold is not part of the splits.
	Faults []*CorruptError

	bounds  *bounds // of image files; nil where there are none
	stores  []*remote.Store
	unknown []string // of the lines of Announce, those on classes of test images that no training image has
}

// Strict is the first fault found at opening as an error, nil when there is
// none.
func (s *Set) Strict() error {
	if len(s.Faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w (--strict-data: %s at fault)", s.Faults[0], plural(len(s.Faults), "place", "places"))
}

// NoOracle says why a class oracle would be of no use, "" when it would be.
func (s *Set) NoOracle() string {
	switch n := present(s.Train); n {
	case 0:
		return "the data set has no labels"
	case 1:
		return "all its images are of one class: no negative would be left"
	}
	return ""
}

// present is how many classes labelled samples have.
func present(d Dataset) (n int) {
	seen := make([]bool, d.Classes())
	for i := 0; i < d.Len() && n < len(seen); i++ {
		if l := d.Label(i); l >= 0 && !seen[l] {
			seen[l] = true
			n++
		}
	}
	return n
}

// NoKNN says why kNN accuracy cannot be measured on the data set, "" when it
// can.
func (s *Set) NoKNN() string {
	switch {
	case s.Test == nil:
		return "the data set has no test split (a val or test folder beside train)"
	case present(s.Train) == 0:
		return "the data set has no labels"
	case present(s.Train) == 1:
		return "the data set has one class only: every figure would be 100 %"
	}
	return s.unlabelledTest()
}

// unlabelledTest says that no test image has a class, "" when one has.
func (s *Set) unlabelledTest() string {
	for i := range s.Test.Len() {
		if s.Test.Label(i) >= 0 {
			return ""
		}
	}
	return fmt.Sprintf("the test split has no labels: of its %s, such as %s, none has one of the %s of the training split",
		plural(s.Test.Len(), "image", "images"), s.Test.Path(0), plural(s.Train.Classes(), "class", "classes"))
}

// unknownLabels says which labels of test images no training image has; label is the
// one that stands in the file.
func (s *Set) unknownLabels(label func(i int) int) (notes []string) {
	if s.Test == nil {
		return nil
	}
	counts := make(map[int]int)
	for i := range s.Test.Len() {
		if s.Test.Label(i) < 0 {
			counts[label(i)]++
		}
	}
	for _, l := range slices.Sorted(maps.Keys(counts)) {
		notes = append(notes, fmt.Sprintf("class %d of the test split has no training images: its %s as unknown", l, plural(counts[l], "image counts", "images count")))
	}
	return notes
}

// CorruptError says that a sample cannot be used.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// Limit is the subset of n samples of d spread evenly over its listing, so
// that classes keep their shares; d itself when it has no more than n. It
// panics when n is below 1.
func Limit(d Dataset, n int) Dataset {
	if n < 1 {
		panic(fmt.Sprintf("data: limit of %d samples", n))
	}
	if d.Len() <= n {
		return d
	}
	return subset{Dataset: d, n: n}
}

type subset struct {
	Dataset
	n int
}

// at is the sample that is number i of the subset.
func (s subset) at(i int) int { return int(int64(i) * int64(s.Dataset.Len()) / int64(s.n)) }

func (s subset) Len() int          { return s.n }
func (s subset) Label(i int) int32 { return s.Dataset.Label(s.at(i)) }
func (s subset) Path(i int) string { return s.Dataset.Path(s.at(i)) }
func (s subset) Decode(i int, d *Decoder) (*augment.Image, error) {
	return s.Dataset.Decode(s.at(i), d)
}

// Encoded is a Dataset whose samples are encoded images.
type Encoded interface {
	Dataset
	// Name is sample i's name in the data set, the same on every machine.
	Name(i int) string
	// Content is sample i as it is stored; the bytes are d's until its next
	// call. Errors are those of Decode.
	Content(i int, d *Decoder) ([]byte, error)
}

// decodeContent is Decode of an Encoded data set.
func decodeContent(s Encoded, i int, d *Decoder, b *budget) (*augment.Image, error) {
	content, err := s.Content(i, d)
	defer d.file.give()
	if err != nil {
		return nil, err
	}
	img, err := d.decode(content, b.pixels, b)
	if err != nil {
		return nil, &CorruptError{Path: s.Path(i), Err: err}
	}
	return img, nil
}
