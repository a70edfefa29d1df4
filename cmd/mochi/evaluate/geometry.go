package evaluate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/figures"
	"mochi/model/loss"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

// GeometryImages is how many images geometry is measured on by default: the
// standard error of alignment is then some 1 % of it, at twice as many
// forward passes.
const GeometryImages = 2000

// GeometryResult is the JSON object of mochi eval geometry, and with step,
// epoch and when the event "geometry" of log.jsonl. x and y are the query
// encoder's embeddings of two random views of an image, k is the key
// encoder's of the second; running statistics in every BatchNorm.
type GeometryResult struct {
	Alignment       float64 `json:"alignment"`  // mean ‖x−y‖²
	Uniformity      float64 `json:"uniformity"` // log mean e^{−2‖x_i−x_j‖²}, mean of that of x and of y
	figures.Figures         // of the loss of x against k and the queue, means; Spread is the mean over dimensions of SpreadOf
	SpreadMin       float64 `json:"spread_min"` // of the dimension with the smallest
	SpreadMax       float64 `json:"spread_max"` // of the one with the largest

	Images      int    `json:"images"`       // measured on
	Split       string `json:"split"`        // test or train
	MoCHi       string `json:"mochi"`        // N,s,s2 of proxy_acc_hard
	Oracle      bool   `json:"oracle"`       // keys of x's own class were left out
	Queue       int    `json:"queue"`        // K
	QueueFilled int64  `json:"queue_filled"` // of them keys of images; the others are random

	SpreadOf []float64 `json:"spread_per_dim,omitempty"` // [d] standard deviation · √d of x; mochi eval geometry only
}

// GeometryOptions say on what to measure, and how.
type GeometryOptions struct {
	Job    config.Job // recipe, temperature and shards of the queue
	Images int        // at most
	MoCHi  config.MoCHi
	Oracle bool
	Seed   uint64
	Report func(text string) // progress, may be nil

	Corrupt func(*data.CorruptError)
}

// Geometry measures where the encoders put the images of set: of its test split, whose keys are not in the queue, else of the
// training split.
func (e *Encoders) Geometry(ctx context.Context, set *data.Set, o GeometryOptions) (GeometryResult, error) {
	net, st := e.state.Network(), e.from
	r := GeometryResult{Split: "test", MoCHi: o.MoCHi.String(), Oracle: o.Oracle, Queue: st.K, QueueFilled: min(st.QueueFilled, int64(st.K))}
	images := set.Test
	if images == nil {
		images, r.Split = set.Train, "train"
	}
	images = limit(images, o.Images, o.Corrupt)
	r.Images = images.Len()
	recipe, err := augment.New(o.Job.Recipe, net.ImageSize)
	if err != nil {
		return r, err
	}
	embed := func(which engine.Encoder, view int) ([]float32, error) {
		prog, err := e.state.Compile(engine.Spec{Encoder: which, Batch: evalBatch, Mode: engine.Eval})
		if err != nil {
			return nil, err
		}
		defer prog.Close()
		views, done := viewer(images, recipe, func(i int) *rand.Rand { return augment.Seed(o.Seed, 0, i, view) })
		defer done()
		f, err := eval.Features(ctx, prog, net, []eval.Feature{eval.Embedding}, eval.Images{N: images.Len(), Fill: views})
		if err != nil {
			return nil, fmt.Errorf("embed the %s images: %w", r.Split, err)
		}
		return f[0], nil
	}
	var x, y, k []float32
	for _, pass := range []struct {
		name    string
		to      *[]float32
		encoder engine.Encoder
		view    int
	}{{"queries", &x, engine.Query, augment.QueryView}, {"positives", &y, engine.Query, augment.KeyView}, {"keys", &k, engine.Key, augment.KeyView}} {
		if o.Report != nil {
			o.Report(fmt.Sprintf("embedding %d %s images as %s", r.Images, r.Split, pass.name))
		}
		if *pass.to, err = embed(pass.encoder, pass.view); err != nil {
			return r, err
		}
	}
	r.Alignment = eval.Alignment(x, y, net.Dim)
	if r.Images > 1 {
		r.Uniformity = (eval.Uniformity(e.engine.Products(), x, net.Dim) + eval.Uniformity(e.engine.Products(), y, net.Dim)) / 2
	}
	r.SpreadOf = eval.Spread(x, net.Dim)
	for _, s := range r.SpreadOf {
		r.Spread += s / float64(net.Dim)
	}
	r.SpreadMin, r.SpreadMax = slices.Min(r.SpreadOf), slices.Max(r.SpreadOf)
	return r, r.proxy(e.engine, st, images, x, k, o)
}

// proxy is the proxy task of training, against the queue of st: the loss
// reports it.
func (r *GeometryResult) proxy(eng engine.Engine, st *checkpoint.State, images data.Dataset, x, k []float32, o GeometryOptions) error {
	const most = 256
	l, err := loss.New(loss.Config{
		N: o.MoCHi.N, S: o.MoCHi.S, S2: o.MoCHi.S2, Temperature: o.Job.Temperature, Shards: o.Job.Shards(), PairsInShard: o.Job.PairsInShard(),
		Seed: o.Seed, Threads: eng.Info().Threads,
	}, st.Dim, min(most, r.Images), st.K, eng.Contrast())
	if err != nil {
		return err
	}
	defer l.Close()
	var labels []int32
	if o.Oracle {
		labels = st.QueueLabels
	}
	shards := loss.Split(st.Queue, labels, st.Dim, o.Job.Shards())
	var out loss.Output
	var sum figures.Figures
	for first := 0; first < r.Images; first += most {
		last := min(first+most, r.Images)
		q := loss.Queries{Q: x[first*st.Dim : last*st.Dim], Step: st.Step, Mix: true}
		for i := first; i < last; i++ {
			q.Samples = append(q.Samples, i)
			if o.Oracle {
				q.Labels = append(q.Labels, images.Label(i))
			}
		}
		out.DQ = make([]float32, len(q.Q))
		if err := l.Compute(loss.Input{Queries: q, Pos: k[first*st.Dim : last*st.Dim], Shards: shards, Scale: 1}, &out); err != nil {
			return fmt.Errorf("proxy task: %w", err)
		}
		sum.Add(out.Figures)
	}
	mean := sum.Mean(r.Images)
	mean.Spread = r.Spread // of all images, not the mean over pieces of them
	r.Figures = mean
	return nil
}

// viewer returns what fills a batch with a view of each image, and what ends
// it. draw gives the generator of image i's view; nil: recipe draws nothing.
func viewer(images data.Dataset, recipe augment.Recipe, draw func(i int) *rand.Rand) (fill func(first, count int, dst []float32) error, done func()) {
	worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
	size := recipe.ViewLen()
	return func(first, count int, dst []float32) error {
		for i := range count {
			img, err := images.Decode(first+i, decoder)
			if err != nil {
				return err
			}
			var rng *rand.Rand
			if draw != nil {
				rng = draw(first + i)
			}
			worker.View(img, rng, dst[i*size:(i+1)*size])
		}
		return nil
	}, decoder.Close
}
