package data

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mochi/replica/augment"
	"mochi/replica/data/sampler"
)

// BenchResult is what Bench measured.
type BenchResult struct {
	ImagesPerS           float64 `json:"images_per_s"` // decoded and augmented to two views
	DecodeOnlyImagesPerS float64 `json:"decode_only_images_per_s"`
	Corrupt              int     `json:"corrupt"` // samples that could not be decoded
}

// Bench runs the loader alone for two thirds of the duration, on batches of 64
// images in the sampler's order, and decodes alone for the rest (whole images,
// of which the views need only a part). workers is the number of goroutines, 0
// for GOMAXPROCS.
func Bench(ctx context.Context, d Dataset, recipe augment.Recipe, workers int, duration time.Duration) (BenchResult, error) {
	const batch = 64
	loader := NewLoader(d, recipe, LoaderConfig{Workers: workers, Depth: 4})
	defer loader.Close()
	order := sampler.New(d.Len(), 0)
	var cursor int64
	ahead := NewAhead(d)
	submit := func() error {
		if err := ahead.Keep(cursor/batch, func(further int) (samples []int) {
			for _, ref := range order.Batch(cursor+int64(further)*batch, batch) {
				samples = append(samples, ref.Sample)
			}
			return samples
		}); err != nil {
			return err
		}
		refs := order.Batch(cursor, batch)
		cursor += batch
		return loader.Submit(Request{Query: [][]Ref{refs}, Key: [][]Ref{refs}})
	}
	for range loader.config.Depth {
		if err := submit(); err != nil {
			return BenchResult{}, err
		}
	}
	next := func() error {
		b, _, err := loader.Next(ctx)
		if err != nil {
			return fmt.Errorf("bench input: %w", err)
		}
		b.Release()
		return submit()
	}
	// The first batches pay for their memory; the clock starts after them.
	for range loader.config.Depth + 1 {
		if err := next(); err != nil {
			return BenchResult{}, err
		}
	}
	images, start := 0, time.Now()
	for images == 0 || time.Since(start) < duration*2/3 {
		if err := next(); err != nil {
			return BenchResult{}, err
		}
		images += batch
	}
	result := BenchResult{ImagesPerS: float64(images) / time.Since(start).Seconds()}
	loader.Reset()

	decoded, elapsed, err := decodeOnly(ctx, loader.data, order.Batch(0, d.Len()), loader.config.Workers, duration/3)
	if err != nil {
		return BenchResult{}, fmt.Errorf("bench input: %w", err)
	}
	result.DecodeOnlyImagesPerS = float64(decoded) / elapsed.Seconds()
	result.Corrupt = len(loader.data.Corrupt())
	return result, nil
}

// decodeOnly decodes samples in the order of refs, again and again, until the
// time is over.
func decodeOnly(ctx context.Context, d Dataset, refs []Ref, workers int, duration time.Duration) (decoded int, elapsed time.Duration, err error) {
	var next atomic.Int64
	var failed error
	var once sync.Once
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			decoder := NewDecoder()
			defer decoder.Close()
			for {
				i := next.Add(1) - 1
				_, err := d.Decode(refs[i%int64(len(refs))].Sample, decoder)
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					once.Do(func() { failed = err })
					return
				}
				if time.Since(start) >= duration {
					return
				}
			}
		})
	}
	wg.Wait()
	return int(next.Load()), time.Since(start), failed
}
