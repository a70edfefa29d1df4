package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// evalBatch is how many images one evaluation program takes.
const evalBatch = 100

// samples are images of a split, by their indices in it.
type samples struct {
	of data.Dataset
	at []int
}

// all is every image of a split, or n of them, evenly spaced (0 = all). What a
// run replaces is left out here: a label belongs to its own image.
func all(ds data.Dataset, n int) samples {
	if l, ok := ds.(*data.Lenient); ok {
		ds = l.Unreplaced()
	}
	if n == 0 || n > ds.Len() {
		n = ds.Len()
	}
	s := samples{of: ds, at: make([]int, n)}
	for i := range s.at {
		s.at[i] = int(int64(i) * int64(ds.Len()) / int64(n))
	}
	return s
}

// view says how images become what the encoder sees.
type view struct {
	name   string // by which a cache knows it
	recipe augment.Recipe
	draw   func(sample int) *rand.Rand // nil: recipe draws nothing
}

// plain is the view of evaluation.
func plain(size int) view {
	r := augment.Eval(size)
	return view{name: fmt.Sprintf("centre %d of %d", size, r.Resized()), recipe: r}
}

// watch is what is told while features are extracted. Each may be nil.
type watch struct {
	progress func(done, all int, imagesPerSecond float64)
	corrupt  func(*data.CorruptError) // an image that is left out; one call at a time
}

// rows are the features of some images, in order; those that cannot be decoded
// are not among them.
type rows struct {
	samples  []int       // indices in the split
	hashes   []uint64    // of the files, or of the pixels of what is no file
	features [][]float32 // of each feature asked for, [len(samples), length]; valid until the next rows
	tried    int         // images looked at
}

// extractor computes features by one encoder in evaluation mode.
type extractor struct {
	program  engine.Program
	net      networkSize
	features []eval.Feature
	lengths  []int
	threads  int

	embeddings, backbone []float32
}

// networkSize is what the extractor knows of a network.
type networkSize struct{ image, dim, feature int }

// extractor compiles one. Close it after use.
func (e *Encoders) extractor(which engine.Encoder, features ...eval.Feature) (*extractor, error) {
	net := e.state.Network()
	x := &extractor{features: features, threads: e.Threads(), net: networkSize{net.ImageSize, net.Dim, net.FeatureDim}}
	for _, f := range features {
		length, err := f.Len(net)
		if err != nil {
			return nil, err
		}
		x.lengths = append(x.lengths, length)
	}
	var err error
	if x.program, err = e.state.Compile(engine.Spec{Encoder: which, Batch: evalBatch, Mode: engine.Eval}); err != nil {
		return nil, err
	}
	x.embeddings, x.backbone = make([]float32, evalBatch*net.Dim), make([]float32, evalBatch*net.FeatureDim)
	return x, nil
}

// Close frees the program.
func (x *extractor) Close() { x.program.Close() }

// run gives the features of s, in order, to add.
func (x *extractor) run(ctx context.Context, s samples, v view, w watch, add func(rows) error) error {
	start, last, done := time.Now(), time.Now(), 0
	return x.batches(ctx, s, v, w, func(b *batch) error {
		if len(b.samples) > 0 {
			if err := x.program.Forward(b.views, x.embeddings); err != nil {
				return err
			}
			x.program.Features(x.backbone)
		}
		r := rows{samples: b.samples, hashes: b.hashes, tried: b.tried}
		for i, f := range x.features {
			from := x.embeddings
			if f == eval.Backbone {
				from = x.backbone
			}
			feature := from[:len(b.samples)*x.lengths[i]]
			for j := range b.samples {
				if !finite(feature[j*x.lengths[i] : (j+1)*x.lengths[i]]) {
					return fmt.Errorf("%s: its feature is not finite: the encoder has diverged", s.of.Path(b.samples[j]))
				}
			}
			r.features = append(r.features, feature)
		}
		if done += b.tried; w.progress != nil && (time.Since(last) > 2*time.Second || done == len(s.at)) {
			last = time.Now()
			w.progress(done, len(s.at), float64(done)/time.Since(start).Seconds())
		}
		return add(r)
	})
}

// finite says whether a feature is one.
func finite(row []float32) bool {
	for _, v := range row {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}

// unit scales a row to length 1; a zero row stays zero.
func unit(row []float32) {
	var sum float64
	for _, v := range row {
		sum += float64(v) * float64(v)
	}
	scale := 1 / max(math.Sqrt(sum), 1e-12)
	for i := range row {
		row[i] = float32(float64(row[i]) * scale)
	}
}

// unit scales the rows of a feature to length 1.
func (r rows) unit(feature, length int) []float32 {
	f := r.features[feature]
	for i := range r.samples {
		unit(f[i*length : (i+1)*length])
	}
	return f
}

// batch is what one program run takes.
type batch struct {
	views   []float32
	samples []int // whose views they are, in order
	hashes  []uint64
	tried   int // images looked at: those that could not be decoded too
}

// batches decodes ahead of what run does with it; on one thread, in turns with it.
func (x *extractor) batches(ctx context.Context, s samples, v view, w watch, run func(*batch) error) error {
	group, ctx := errgroup.WithContext(ctx)
	ready, free := make(chan *batch), make(chan *batch, min(2, x.threads))
	for range cap(free) {
		free <- &batch{views: make([]float32, evalBatch*v.recipe.ViewLen())}
	}
	group.Go(func() error {
		defer close(ready)
		for first := 0; first < len(s.at); first += evalBatch {
			var b *batch
			select {
			case b = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			at := s.at[first:min(first+evalBatch, len(s.at))]
			if err := b.fill(samples{s.of, at}, v, x.threads, w.corrupt); err != nil {
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
		return ctx.Err()
	})
	return group.Wait()
}

// fill decodes samples on so many threads; the views of those that can be decoded
// stand first, in order.
func (b *batch) fill(s samples, v view, threads int, corrupt func(*data.CorruptError)) error {
	size := v.recipe.ViewLen()
	good, hashes := make([]bool, len(s.at)), make([]uint64, len(s.at))
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= len(s.at)
	}
	var group errgroup.Group
	for range max(1, threads) {
		group.Go(func() error {
			worker, decoder := augment.NewWorker(v.recipe), data.NewDecoder()
			defer decoder.Close()
			for i, ok := take(); ok; i, ok = take() {
				img, hash, err := decode(s.of, s.at[i], decoder)
				var fault *data.CorruptError
				if errors.As(err, &fault) {
					mu.Lock()
					if corrupt != nil {
						corrupt(fault)
					}
					mu.Unlock()
					continue
				}
				if err != nil {
					return err
				}
				var rng *rand.Rand
				if v.draw != nil {
					rng = v.draw(s.at[i])
				}
				worker.View(img, rng, b.views[i*size:(i+1)*size])
				good[i], hashes[i] = true, hash
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b.samples, b.hashes, b.tried = b.samples[:0], b.hashes[:0], len(s.at)
	for i, ok := range good {
		if ok {
			copy(b.views[len(b.samples)*size:], b.views[i*size:(i+1)*size])
			b.samples, b.hashes = append(b.samples, s.at[i]), append(b.hashes, hashes[i])
		}
	}
	clear(b.views[len(b.samples)*size:])
	return nil
}

// decode is an image, and a hash of its file, of its pixels where it has none.
func decode(ds data.Dataset, i int, d *data.Decoder) (img *augment.Image, hash uint64, err error) {
	encoded, at, files := data.File(ds, i)
	if files {
		content, err := encoded.Content(at, d)
		if err != nil {
			return nil, 0, err
		}
		hash = xxhash.Sum64(content)
	}
	img, err = ds.Decode(i, d)
	if err == nil && !files {
		hash = xxhash.Sum64(img.Pix)
	}
	return img, hash, err
}
