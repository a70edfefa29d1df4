// Package survey looks at every image of a data set: what there is, what
// cannot be decoded, what is there twice.
//
// Cost: each image is read and decoded once, on all given workers; 16 bytes
// an image are kept to find duplicates.
package survey

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"mochi/replica/data"
)

// Report is what a data set holds.
type Report struct {
	Kind    string `json:"kind"`
	Digest  string `json:"digest"` // as replicas compare it
	Train   Split  `json:"train"`
	Test    *Split `json:"test,omitempty"`
	Classes int    `json:"classes"`

	ByClass []Class `json:"by_class,omitempty"`
	Sizes   Sizes   `json:"sizes"` // of all images that can be read

	Formats map[string]int `json:"formats,omitempty"` // JPEG, PNG
	Colours map[string]int `json:"colours,omitempty"` // RGB, grey, CMYK, …
	Turned  int            `json:"turned"`            // EXIF orientation other than upright

	Unreadable []Fault     `json:"unreadable"` // folders and shards
	Corrupt    []Fault     `json:"corrupt"`    // images
	Duplicates []Duplicate `json:"duplicates"`
	Leaked     int         `json:"leaked"`   // test images that are training images too
	Complete   bool        `json:"complete"` // false: pixels were not decoded, contents not compared

	Found   int                 `json:"found"`    // files, members and lines
	LeftOut map[data.Reason]int `json:"left_out"` // how many of them, by reason
	Files   data.Account        `json:"files"`    // what became of all that was found, with examples
	Verdict []string            `json:"verdict"`  // in words: trained on, evaluated on, left out
}

// Split counts the images of one split.
type Split struct {
	Images    int   `json:"images"`
	Unlabeled int   `json:"unlabeled"`
	Bytes     int64 `json:"bytes"` // encoded; 0 where images are not files
}

// Class counts the images of one class.
type Class struct {
	Name  string `json:"name"`
	Train int    `json:"train"`
	Test  int    `json:"test"`
}

// Fault is what cannot be read.
type Fault struct {
	Path  string `json:"path"`
	Cause string `json:"cause"`
}

// Duplicate lists images of the same content.
type Duplicate struct {
	Paths []string `json:"paths"`
}

// Sizes describes the images' dimensions, pixels.
type Sizes struct {
	MinWidth     int   `json:"min_width"`
	MinHeight    int   `json:"min_height"`
	MaxWidth     int   `json:"max_width"`
	MaxHeight    int   `json:"max_height"`
	MedianWidth  int   `json:"median_width"`
	MedianHeight int   `json:"median_height"`
	ShorterSide  []Bin `json:"shorter_side"` // histogram
}

// Bin is one bar of a histogram: values from From to To, inclusive.
type Bin struct {
	From   int `json:"from"`
	To     int `json:"to"`
	Images int `json:"images"`
}

// Options select how a survey is done.
type Options struct {
	Workers  int                   // goroutines; default 1
	Quick    bool                  // headers only: finds neither damaged pixels nor duplicates
	Progress func(done, total int) // optional, from several goroutines
}

// found is what is known of one image.
type found struct {
	header data.Header
	bytes  int64
	hash   uint64 // of the content; 0 where there is none
	err    *data.CorruptError
}

// Run surveys a data set. It ends early with ctx, or when an image fails for
// a reason that is not the image's.
func Run(ctx context.Context, set *data.Set, o Options) (*Report, error) {
	r := &Report{
		Kind: set.Kind, Digest: set.Info.Digest, Classes: set.Train.Classes(), Complete: !o.Quick,
		Formats: map[string]int{}, Colours: map[string]int{},
		Found: set.Account.Found, LeftOut: map[data.Reason]int{}, Files: set.Account, Unreadable: []Fault{}, Corrupt: []Fault{}, Duplicates: []Duplicate{},
	}
	for _, l := range set.Account.Left {
		r.LeftOut[l.Reason] += l.Files
	}
	for _, f := range set.Faults {
		r.Unreadable = append(r.Unreadable, Fault{f.Path, f.Err.Error()})
	}
	splits := []data.Dataset{set.Train}
	if set.Test != nil {
		splits = append(splits, set.Test)
	}
	total := 0
	for _, d := range splits {
		total += d.Len()
	}
	var all [][]found
	done := 0
	for _, d := range splits {
		images, err := look(ctx, set, d, o, func(n int) {
			if o.Progress != nil {
				o.Progress(done+n, total)
			}
		})
		if err != nil {
			return nil, err
		}
		done += d.Len()
		all = append(all, images)
	}
	r.count(splits, all)
	r.measure(all)
	r.duplicates(splits, all)
	var bad [2]int
	for s, images := range all {
		for _, f := range images {
			if f.err != nil {
				bad[s]++
			}
		}
	}
	r.Verdict = set.Verdict(bad[0], bad[1])
	return r, nil
}

// look reads every image of a split.
func look(ctx context.Context, set *data.Set, d data.Dataset, o Options, progress func(done int)) ([]found, error) {
	images := make([]found, d.Len())
	var next, finished atomic.Int64
	var failed error
	var once sync.Once
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range max(1, o.Workers) {
		wg.Go(func() {
			decoder := data.NewDecoder()
			defer decoder.Close()
			for {
				i := int(next.Add(1) - 1)
				if i >= len(images) {
					return
				}
				err := ctx.Err()
				if err == nil {
					images[i], err = lookAt(set, d, i, decoder, o.Quick)
				}
				if err != nil {
					once.Do(func() { failed = err; cancel() })
					return
				}
				if n := int(finished.Add(1)); n%64 == 0 || n == len(images) {
					progress(n)
				}
			}
		})
	}
	wg.Wait()
	return images, failed
}

func lookAt(set *data.Set, d data.Dataset, i int, decoder *data.Decoder, quick bool) (f found, err error) {
	defer func() {
		decoder.Trim()
		if errors.As(err, &f.err) {
			err = nil
		}
	}()
	encoded, at, files := data.File(d, i)
	if files {
		content, err := encoded.Content(at, decoder)
		if err != nil {
			return f, err
		}
		f.bytes = int64(len(content))
		if !quick {
			f.hash = xxhash.Sum64(content)
		}
		if f.header, err = set.Usable(content); err != nil {
			return f, &data.CorruptError{Path: d.Path(i), Err: err}
		}
		if quick {
			return f, nil
		}
	}
	img, err := d.Decode(i, decoder)
	if err != nil {
		return f, err
	}
	if !files {
		f.header = data.Header{Width: img.W, Height: img.H, Orientation: 1}
		f.hash = xxhash.Sum64(img.Pix)
	}
	return f, nil
}

// count fills in what is counted by split and class.
func (r *Report) count(splits []data.Dataset, all [][]found) {
	names, _ := splits[0].(interface{ ClassName(int) string })
	for c := range r.Classes {
		name := fmt.Sprint(c)
		if names != nil {
			name = names.ClassName(c)
		}
		r.ByClass = append(r.ByClass, Class{Name: name})
	}
	for s, d := range splits {
		split := Split{Images: d.Len()}
		for i, f := range all[s] {
			split.Bytes += f.bytes
			switch label := d.Label(i); {
			case label < 0:
				split.Unlabeled++
			case s == 0:
				r.ByClass[label].Train++
			default:
				r.ByClass[label].Test++
			}
			if f.err != nil {
				r.Corrupt = append(r.Corrupt, Fault{f.err.Path, f.err.Err.Error()})
				continue
			}
			if f.header.Format != "" {
				r.Formats[f.header.Format]++
				r.Colours[f.header.Colours]++
			}
			if f.header.Orientation > 1 {
				r.Turned++
			}
		}
		if s == 0 {
			r.Train = split
		} else {
			r.Test = &split
		}
	}
}

// measure fills in the sizes. The bars of the histogram double in width.
func (r *Report) measure(all [][]found) {
	var widths, heights []int
	bins := map[int]int{}
	for _, images := range all {
		for _, f := range images {
			if f.err != nil {
				continue
			}
			w, h := f.header.Width, f.header.Height
			if f.header.Orientation >= 5 {
				w, h = h, w
			}
			widths, heights = append(widths, w), append(heights, h)
			from := 1
			for from*2 <= min(w, h) {
				from *= 2
			}
			bins[from]++
		}
	}
	if len(widths) == 0 {
		r.Sizes.ShorterSide = []Bin{}
		return
	}
	sort.Ints(widths)
	sort.Ints(heights)
	n := len(widths)
	r.Sizes = Sizes{
		MinWidth: widths[0], MinHeight: heights[0], MaxWidth: widths[n-1], MaxHeight: heights[n-1],
		MedianWidth: widths[n/2], MedianHeight: heights[n/2],
	}
	first := 1
	for bins[first] == 0 {
		first *= 2
	}
	for left := n; left > 0; first *= 2 {
		r.Sizes.ShorterSide = append(r.Sizes.ShorterSide, Bin{From: first, To: 2*first - 1, Images: bins[first]})
		left -= bins[first]
	}
}

// duplicates fills in images of equal content. (Their 64-bit hashes agree; in
// a million different images that happens by chance once in 37 million data
// sets.)
func (r *Report) duplicates(splits []data.Dataset, all [][]found) {
	type image struct{ split, i int }
	first := map[uint64]image{}
	groups := map[uint64]int{} // hash → index of r.Duplicates
	inTrain := map[uint64]bool{}
	for s, images := range all {
		for i, f := range images {
			if f.hash == 0 || f.err != nil {
				continue
			}
			if s == 0 {
				inTrain[f.hash] = true
			} else if inTrain[f.hash] {
				r.Leaked++
			}
			p, seen := first[f.hash]
			if !seen {
				first[f.hash] = image{s, i}
				continue
			}
			g, known := groups[f.hash]
			if !known {
				g = len(r.Duplicates)
				groups[f.hash] = g
				r.Duplicates = append(r.Duplicates, Duplicate{Paths: []string{splits[p.split].Path(p.i)}})
			}
			r.Duplicates[g].Paths = append(r.Duplicates[g].Paths, splits[s].Path(i))
		}
	}
}
