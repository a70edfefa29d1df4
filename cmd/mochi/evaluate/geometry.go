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
	LeftOut     int    `json:"left_out"`     // images that cannot be decoded

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
	split := set.Test
	if split == nil {
		split, r.Split = set.Train, "train"
	}
	recipe, err := augment.New(o.Job.Recipe, net.ImageSize)
	if err != nil {
		return r, err
	}
	images := all(split, o.Images)
	place := make(map[int]int, len(images.at)) // views are drawn by it
	for i, sample := range images.at {
		place[sample] = i
	}
	embed := func(which engine.Encoder, number int, w watch) (embeddings []float32, of []int, err error) {
		x, err := e.extractor(which, eval.Embedding)
		if err != nil {
			return nil, nil, err
		}
		defer x.Close()
		v := view{recipe.Name(), recipe, func(i int) *rand.Rand { return augment.Seed(o.Seed, 0, place[i], number) }}
		err = x.run(ctx, images, v, w, func(r rows) error {
			embeddings, of = append(embeddings, r.unit(0, net.Dim)...), append(of, r.samples...)
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("embed the %s images: %w", r.Split, err)
		}
		return embeddings, of, nil
	}
	var x, y, k []float32
	tried := len(images.at)
	for i, pass := range []struct {
		name    string
		to      *[]float32
		encoder engine.Encoder
		view    int
	}{{"queries", &x, engine.Query, augment.QueryView}, {"positives", &y, engine.Query, augment.KeyView}, {"keys", &k, engine.Key, augment.KeyView}} {
		if o.Report != nil {
			o.Report(fmt.Sprintf("embedding %d %s images as %s", len(images.at), r.Split, pass.name))
		}
		w := watch{}
		if i == 0 { // those that cannot be decoded are told, and left out, once
			w.corrupt = o.Corrupt
		}
		var of []int
		if *pass.to, of, err = embed(pass.encoder, pass.view, w); err != nil {
			return r, err
		}
		if i > 0 && len(of) < len(images.at) {
			return r, fmt.Errorf("%d %s images could be decoded once and not again: something changes them", len(images.at)-len(of), r.Split)
		}
		images.at = of
	}
	if r.Images, r.LeftOut = len(images.at), tried-len(images.at); r.Images == 0 {
		return r, fmt.Errorf("none of %d %s images can be decoded", tried, r.Split)
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
func (r *GeometryResult) proxy(eng engine.Engine, st *checkpoint.State, images samples, x, k []float32, o GeometryOptions) error {
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
				q.Labels = append(q.Labels, images.of.Label(images.at[i]))
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
