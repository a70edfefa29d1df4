package evaluate

import (
	"context"
	"fmt"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/data"
)

// Embedded is an image with its feature.
type Embedded struct {
	Path    string
	Split   string // train or test
	Label   int32
	Sample  int       // index in the split
	Feature []float32 // valid until the next batch
}

// EmbedOptions say what to embed.
type EmbedOptions struct {
	Feature   eval.Feature
	Key       bool // by the key encoder
	Normalize bool // rows of length 1; embeddings always are
	Progress  func(done, all int, imagesPerSecond float64)
	Corrupt   func(*data.CorruptError) // an image that is left out
}

// Embed gives the features of all images of the splits, in order, to add. Images
// that cannot be decoded are left out.
func (e *Encoders) Embed(ctx context.Context, splits map[string]data.Dataset, o EmbedOptions, add func([]Embedded) error) (n int, err error) {
	which := engine.Query
	if o.Key {
		which = engine.Key
	}
	x, err := e.extractor(which, o.Feature)
	if err != nil {
		return 0, err
	}
	defer x.Close()
	length := x.lengths[0]
	images, before := 0, 0
	for _, ds := range splits {
		images += ds.Len()
	}
	for _, split := range []string{"train", "test"} {
		ds := splits[split]
		if ds == nil {
			continue
		}
		w := watch{corrupt: o.Corrupt}
		if o.Progress != nil {
			w.progress = func(done, _ int, rate float64) { o.Progress(before+done, images, rate) }
		}
		err := x.run(ctx, all(ds, 0), plain(x.net.image), w, func(r rows) error {
			list := make([]Embedded, len(r.samples))
			for i, sample := range r.samples {
				row := r.features[0][i*length : (i+1)*length]
				if o.Normalize {
					unit(row)
				}
				list[i] = Embedded{Path: ds.Path(sample), Split: split, Label: ds.Label(sample), Sample: sample, Feature: row}
			}
			n += len(list)
			return add(list)
		})
		if err != nil {
			return n, fmt.Errorf("embed the %s images: %w", split, err)
		}
		before += ds.Len()
	}
	return n, nil
}
