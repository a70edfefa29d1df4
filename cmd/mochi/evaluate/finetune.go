package evaluate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mochi/coordinator/smallfile"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/model/network"
	"mochi/model/optim"
	"mochi/replica/augment"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// FinetuneOptions say how a whole network is trained from a checkpoint on some of the
// labels.
type FinetuneOptions struct {
	Labels       string  // "1%": so many of each class, drawn with Seed, at least one; or a file of image names
	Backbone     float64 // learning rate of all but the classifier, for a batch of Batch
	Head         float64 // of the classifier
	Epochs       int
	Batch, Group int // samples of a step, and of those that share BatchNorm statistics
	Seed         uint64
	Engine       string // its name, --engine
	On           engine.Config
	Workers      int
	Progress     func(format string, args ...any)
	Corrupt      func(*data.CorruptError)
}

// FinetuneResult is the JSON object of mochi eval finetune.
type FinetuneResult struct {
	AccuracyResult
	Labels  string  `json:"labels"`        // as asked for
	Lists   string  `json:"lists"`         // how the images were chosen
	Digest  string  `json:"labels_sha256"` // of their names, sorted, one a line
	Train   int     `json:"train"`         // images that were trained on
	Classes int     `json:"classes"`
	Epochs  int     `json:"epochs"`
	Batch   int     `json:"batch"`
	RateB   float64 `json:"lr_backbone"`
	RateH   float64 `json:"lr_head"`
}

// finetuneMomentum is that of SGD, and headDeviation that of a new classifier's weights.
const (
	finetuneMomentum = 0.9
	headDeviation    = 0.01
)

// mostList is how long a list of images may be, bytes: ImageNet's has 30 MB.
const mostList = 1 << 28

// labelled chooses the images that are trained on, and says how.
func (o FinetuneOptions) labelled(ds data.Dataset) (at []int, how string, err error) {
	if share, ok := strings.CutSuffix(o.Labels, "%"); ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return nil, "", fmt.Errorf("%q is no part of the labels: above 0%% and at most 100%%", o.Labels)
		}
		if percent == 100 {
			return all(ds, 0).at, "all", nil
		}
		return shareOfEach(ds, percent/100, o.Seed), fmt.Sprintf("drawn per class, seed %d", o.Seed), nil
	}
	text, err := smallfile.Read(o.Labels, mostList)
	if err == nil {
		at, err = listed(ds, text)
	}
	return at, "names in " + o.Labels, err
}

// shareOfEach draws a part of the samples of each class, at least one.
func shareOfEach(ds data.Dataset, part float64, seed uint64) (at []int) {
	of := make([][]int, ds.Classes())
	for i := range ds.Len() {
		if label := ds.Label(i); label >= 0 {
			of[label] = append(of[label], i)
		}
	}
	for class, list := range of {
		rng := rand.New(rand.NewPCG(seed, 0x66696e65<<16|uint64(class))) // a stream a class
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		n := min(len(list), max(1, int(math.Round(part*float64(len(list))))))
		at = append(at, list[:n]...)
	}
	slices.Sort(at)
	return at
}

// listed finds images by name, one a line, as SimCLR's lists of ImageNet have them:
// n01440764_10026.JPEG.
func listed(ds data.Dataset, text []byte) (at []int, err error) {
	index := make(map[string]int, ds.Len())
	for i := range ds.Len() {
		index[filepath.Base(ds.Path(i))] = i
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		name := strings.TrimSpace(lines.Text())
		if name == "" {
			continue
		}
		i, known := index[path.Base(name)]
		if !known {
			return nil, fmt.Errorf("line %d: the training images have no %q", n, name)
		}
		at = append(at, i)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	slices.Sort(at)
	if at = slices.Compact(at); len(at) == 0 {
		return nil, errors.New("it names no image")
	}
	return at, nil
}

// digestOfNames is the SHA-256 of the names of samples.
func digestOfNames(ds data.Dataset, at []int) string {
	names := make([]string, len(at))
	for i, sample := range at {
		names[i] = filepath.Base(ds.Path(sample))
	}
	slices.Sort(names)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(names, "\n")+"\n")))
}

// classifier is the network of an encoder with a classifier of so many classes, and its
// initial state: the backbone of st, and weights ~ N(0, 0.01) without bias, drawn with
// seed.
func classifier(net *network.Network, st *checkpoint.State, classes int, seed uint64) (*network.Network, *checkpoint.State, error) {
	with, err := network.Build(net.Arch, network.Options{Channels: net.Channels, ImageSize: net.ImageSize, Dim: classes, Head: network.HeadClasses})
	if err != nil {
		return nil, nil, err
	}
	if len(with.Buffers) != len(net.Buffers) {
		return nil, nil, fmt.Errorf("the encoder is no %s as it is built here", net.Arch)
	}
	params := make([]float32, with.NumParams())
	rng := rand.New(rand.NewPCG(seed, 0x68656164)) // its own stream
	for _, t := range with.Params {
		to := params[t.Offset : t.Offset+t.Size]
		if isHead(t) {
			for i := range to {
				if len(t.Shape) == 2 {
					to[i] = float32(headDeviation * rng.NormFloat64())
				}
			}
			continue
		}
		i := slices.IndexFunc(net.Params, func(p network.Tensor) bool { return p.Name == t.Name && slices.Equal(p.Shape, t.Shape) })
		if i < 0 {
			return nil, nil, fmt.Errorf("the encoder has no %s %v", t.Name, t.Shape)
		}
		copy(to, st.QueryParams[net.Params[i].Offset:])
	}
	start := &checkpoint.State{Arch: net.Arch, Net: with, QueryParams: params, KeyParams: params, QueryBuffers: st.QueryBuffers, KeyBuffers: st.QueryBuffers}
	return with, start, nil
}

// isHead says whether a parameter is of the classifier.
func isHead(t network.Tensor) bool { return strings.HasPrefix(t.Name, "fc.") }

// Finetune trains the query encoder with a classifier in place of its head, with a
// learning rate for each, on images of set with labels, and classifies the test images.
// Views are crop and flip; SGD with momentum 0.9, cosine, no weight decay. st is not
// changed.
func Finetune(ctx context.Context, net *network.Network, st *checkpoint.State, set *data.Set, o FinetuneOptions) (r FinetuneResult, err error) {
	train := unreplaced(set.Train)
	at, how, err := o.labelled(train)
	if err != nil {
		return r, fmt.Errorf("labels: %w", err)
	}
	r = FinetuneResult{
		Labels: o.Labels, Lists: how, Digest: digestOfNames(train, at), Train: len(at),
		Classes: train.Classes(), Epochs: o.Epochs, Batch: o.Batch, RateB: o.Backbone, RateH: o.Head,
	}
	o.Progress("%d of %d training images (%s), sha256 %.16s…; lr %g of the backbone, %g of the classifier, %d epochs, batch %d",
		r.Train, train.Len(), how, r.Digest, o.Backbone, o.Head, o.Epochs, o.Batch)
	with, start, err := classifier(net, st, r.Classes, o.Seed)
	if err != nil {
		return r, err
	}
	enc, err := OpenEncoders(o.Engine, o.On, with, start)
	if err != nil {
		return r, err
	}
	defer enc.Close()
	t := &tuning{FinetuneOptions: o, net: with, state: enc.state, data: chosen{train, at}}
	if err := t.run(ctx); err != nil {
		return r, err
	}
	r.AccuracyResult, err = enc.Accuracy(ctx, set, nil)
	return r, err
}

// unreplaced is a data set in which a label belongs to its own image.
func unreplaced(ds data.Dataset) data.Dataset {
	if l, ok := ds.(*data.Lenient); ok {
		return l.Unreplaced()
	}
	return ds
}

// chosen is some samples of a data set.
type chosen struct {
	data.Dataset
	at []int
}

func (c chosen) Len() int          { return len(c.at) }
func (c chosen) Label(i int) int32 { return c.Dataset.Label(c.at[i]) }
func (c chosen) Path(i int) string { return c.Dataset.Path(c.at[i]) }
func (c chosen) Decode(i int, d *data.Decoder) (*augment.Image, error) {
	return c.Dataset.Decode(c.at[i], d)
}

// tuning is a training under way.
type tuning struct {
	FinetuneOptions
	net     *network.Network
	state   engine.State
	data    data.Dataset
	program engine.Program

	sum, grads        []float32 // [NumParams]
	stats, groupStats []float32 // [NumBuffers]
	logits, dLogits   []float32 // [g, classes]
}

func (t *tuning) run(ctx context.Context) (err error) {
	if t.program, err = t.state.Compile(engine.Spec{Encoder: engine.Query, Batch: t.Group, Mode: engine.Train}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.program.Close()) }()
	t.sum, t.grads = make([]float32, t.net.NumParams()), make([]float32, t.net.NumParams())
	t.stats, t.groupStats = make([]float32, t.net.NumBuffers()), make([]float32, t.net.NumBuffers())
	t.logits, t.dLogits = make([]float32, t.Group*t.net.Dim), make([]float32, t.Group*t.net.Dim)

	lenient := data.NewLenient(t.data, t.Corrupt)
	lenient.SameClass()
	loader := data.NewLoader(lenient, augment.CropFlip(t.net.ImageSize), data.LoaderConfig{Seed: t.Seed, Workers: t.Workers, Depth: 2, BesideEngine: true})
	defer loader.Close()
	order := sampler.New(t.data.Len(), t.Seed)
	steps := order.Steps(t.Epochs, t.Batch, 0)
	schedule := optim.Schedule{Name: optim.Cosine, Base: t.Head, Epochs: t.Epochs}
	const ahead = 2
	for step := range steps + ahead {
		if step < steps {
			if err := loader.Submit(t.request(order, step)); err != nil {
				return err
			}
		}
		if step < ahead {
			continue
		}
		at := step - ahead
		images, _, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		cursor := at * int64(t.Batch)
		l, right, err := t.step(images, order.Batch(cursor, t.Batch), schedule.LR(float64(cursor)/float64(t.data.Len())))
		images.Release()
		if err != nil {
			return fmt.Errorf("step %d: %w", at+1, err)
		}
		if epoch := order.Epoch(cursor + int64(t.Batch)); epoch > order.Epoch(cursor) || at == steps-1 {
			t.Progress("epoch %d/%d: loss %.3f, %.1f %% of the last batch right", epoch, t.Epochs, l, 100*right)
		}
	}
	return nil
}

// request asks for the views of a step, group by group.
func (t *tuning) request(order *sampler.Sampler, step int64) data.Request {
	refs := order.Batch(step*int64(t.Batch), t.Batch)
	r := data.Request{Step: step + 1}
	for lo := 0; lo < t.Batch; lo += t.Group {
		r.Query = append(r.Query, refs[lo:lo+t.Group])
	}
	return r
}

// step is one of SGD. Engines have one rate; a gradient that is a part of what it was is,
// without weight decay, a rate that is the same part.
func (t *tuning) step(images *data.Batch, refs []data.Ref, rate float64) (mean, right float64, err error) {
	clear(t.sum)
	clear(t.stats)
	groups := len(images.Query)
	cross := loss.Classes{Classes: t.net.Dim}
	for j, views := range images.Query {
		labels := make([]int32, t.Group)
		for i := range labels {
			labels[i] = t.data.Label(refs[j*t.Group+i].Sample)
		}
		if err := t.program.Forward(views, t.logits); err != nil {
			return 0, 0, err
		}
		t.program.Statistics(t.groupStats)
		l, hits, err := cross.Compute(t.logits, labels, 1/float64(t.Batch), t.dLogits)
		if err != nil {
			return 0, 0, fmt.Errorf("%w: lower the learning rates", err)
		}
		if err := t.program.Backward(t.dLogits, t.grads, nil); err != nil {
			return 0, 0, err
		}
		add(t.sum, t.grads, 1)
		add(t.stats, t.groupStats, 1/float32(groups))
		mean, right = mean+l/float64(t.Batch), right+float64(hits)/float64(t.Batch)
	}
	part := float32(t.Backbone / t.Head)
	for _, p := range t.net.Params {
		if !isHead(p) {
			for i := p.Offset; i < p.Offset+p.Size; i++ {
				t.sum[i] *= part
			}
		}
	}
	return mean, right, t.state.Update(engine.Update{
		Grads: t.sum, QueryStatistics: t.stats, KeyStatistics: t.stats, LR: float32(rate), SGDMomentum: finetuneMomentum,
	})
}

// add adds scale times x to sum.
func add(sum, x []float32, scale float32) {
	for i, v := range x {
		sum[i] += scale * v
	}
}

// Say is Progress that writes lines.
func Say(out io.Writer) func(format string, args ...any) {
	return func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
}
