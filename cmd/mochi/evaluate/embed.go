package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// Embedded is an image with its feature.
type Embedded struct {
	Path    string
	Split   string // train or test
	Label   int32
	Feature []float32 // valid until the next batch
}

// EmbedOptions say what to embed.
type EmbedOptions struct {
	Feature   eval.Feature
	Key       bool // by the key encoder
	Normalize bool // rows of length 1; embeddings always are
	Threads   int  // that decode
	Progress  func(done, all int, imagesPerSecond float64)
	Corrupt   func(*data.CorruptError) // an image that is left out
}

// Embed gives the features of all images of the splits, in order, to add. Images
// that cannot be decoded are left out.
func (e *Encoders) Embed(ctx context.Context, splits map[string]data.Dataset, o EmbedOptions, add func([]Embedded) error) (rows int, err error) {
	net := e.state.Network()
	which := engine.Query
	if o.Key {
		which = engine.Key
	}
	prog, err := e.state.Compile(engine.Spec{Encoder: which, Batch: evalBatch, Mode: engine.Eval})
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	length, err := o.Feature.Len(net)
	if err != nil {
		return 0, err
	}
	all := 0
	for _, ds := range splits {
		all += ds.Len()
	}
	embeddings, feature := make([]float32, evalBatch*net.Dim), make([]float32, evalBatch*length)
	start, last, done := time.Now(), time.Now(), 0
	for _, split := range []string{"train", "test"} {
		ds := splits[split]
		if ds == nil {
			continue
		}
		err := batches(ctx, ds, augment.Eval(net.ImageSize), o, func(b *batch) error {
			if len(b.samples) > 0 {
				if err := prog.Forward(b.views, embeddings); err != nil {
					return err
				}
				if o.Feature == eval.Backbone {
					prog.Features(feature)
				} else {
					copy(feature, embeddings)
				}
			}
			list := make([]Embedded, len(b.samples))
			for i, sample := range b.samples {
				row := feature[i*length : (i+1)*length]
				if err := finish(row, o.Normalize); err != nil {
					return fmt.Errorf("%s: %w", ds.Path(sample), err)
				}
				list[i] = Embedded{Path: ds.Path(sample), Split: split, Label: ds.Label(sample), Feature: row}
			}
			rows += len(list)
			if done += b.tried; o.Progress != nil && (time.Since(last) > 2*time.Second || done == all) {
				last = time.Now()
				o.Progress(done, all, float64(done)/time.Since(start).Seconds())
			}
			return add(list)
		})
		if err != nil {
			return rows, fmt.Errorf("embed the %s images: %w", split, err)
		}
	}
	return rows, nil
}

// finish checks a feature, and scales it to length 1.
func finish(row []float32, normalize bool) error {
	var sum float64
	for _, x := range row {
		sum += float64(x) * float64(x)
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return errors.New("its feature is not finite: the encoder has diverged")
	}
	if normalize {
		scale := 1 / max(math.Sqrt(sum), 1e-12)
		for i := range row {
			row[i] = float32(float64(row[i]) * scale)
		}
	}
	return nil
}

// batch is what one program run takes.
type batch struct {
	views   []float32
	samples []int // whose views they are, in order
	tried   int   // images looked at: those that could not be decoded too
}

// batches decodes ahead of what run does with it.
func batches(ctx context.Context, ds data.Dataset, recipe augment.Recipe, o EmbedOptions, run func(*batch) error) error {
	group, ctx := errgroup.WithContext(ctx)
	ready, free := make(chan *batch), make(chan *batch, 2)
	for range cap(free) {
		free <- &batch{views: make([]float32, evalBatch*recipe.ViewLen())}
	}
	group.Go(func() error {
		defer close(ready)
		for first := 0; first < ds.Len(); first += evalBatch {
			var b *batch
			select {
			case b = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := b.fill(ds, first, min(evalBatch, ds.Len()-first), recipe, o); err != nil {
				return err
			}
			select {
			case ready <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	group.Go(func() error {
		for b := range ready {
			if err := run(b); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return group.Wait()
}

// fill decodes count samples on o.Threads goroutines; the views of those that can
// be decoded stand first, in order.
func (b *batch) fill(ds data.Dataset, first, count int, recipe augment.Recipe, o EmbedOptions) error {
	size := recipe.ViewLen()
	good := make([]bool, count)
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= count
	}
	var group errgroup.Group
	for range max(1, o.Threads) {
		group.Go(func() error {
			worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
			defer decoder.Close()
			for i, ok := take(); ok; i, ok = take() {
				img, err := ds.Decode(first+i, decoder)
				var corrupt *data.CorruptError
				if errors.As(err, &corrupt) {
					mu.Lock()
					if o.Corrupt != nil {
						o.Corrupt(corrupt)
					}
					mu.Unlock()
					continue
				}
				if err != nil {
					return err
				}
				worker.View(img, nil, b.views[i*size:(i+1)*size])
				good[i] = true
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b.samples, b.tried = b.samples[:0], count
	for i, ok := range good {
		if ok {
			copy(b.views[len(b.samples)*size:], b.views[i*size:(i+1)*size])
			b.samples = append(b.samples, first+i)
		}
	}
	clear(b.views[len(b.samples)*size:])
	return nil
}
