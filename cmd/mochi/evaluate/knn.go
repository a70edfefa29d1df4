package evaluate

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/probe"
	"mochi/replica/data"
)

// KNNResult is the JSON object of mochi eval knn.
type KNNResult struct {
	Top1    float64 `json:"knn_top1"` // accuracy, 0…1
	Top5    float64 `json:"knn_top5"` // the class is one of the first five
	Train   int     `json:"train"`    // training images that vote
	Test    int     `json:"test"`     // test images that are classified
	Feature string  `json:"feature"`  // backbone or embedding

	K              int     `json:"k"`                          // neighbours that vote: no more than there are, and unless asked for than the smallest class has (at least 5)
	Temperature    float64 `json:"kernel_temperature"`         // votes weigh e^{similarity/temperature}
	ImageSize      int     `json:"image_size"`                 // pixels, of a side, that the encoder sees
	Classes        int     `json:"classes"`                    // of the training images
	ImagesPerClass int     `json:"images_per_class,omitempty"` // drawn, at most; absent: all
	LeftOut        int     `json:"left_out"`                   // images that cannot be decoded
	Unlabeled      int     `json:"unlabeled"`                  // test images without a class of the training images: not counted
}

// Leaks are test images whose file is that of a training image, byte for byte (of
// what is no file: the pixels).
type Leaks struct {
	Leaked int      `json:"leaked"`
	Paths  []string `json:"leaked_paths,omitempty"` // some of them: "test image = training image"
}

// KNNOptions say what to classify, and how.
type KNNOptions struct {
	K           []int
	Free        bool // K is nobody's wish: no more than the smallest class has (or fewestNeighbours)
	Temperature []float64
	Features    []eval.Feature
	Train, Test int    // images, evenly spaced; 0 = all
	PerClass    int    // training images of each class, drawn with Seed; 0 = all
	Seed        uint64 // of PerClass
	Progress    io.Writer
	Corrupt     func(*data.CorruptError) // an image that is left out
}

// shownLeaks is how many leaked images are named.
const shownLeaks = 20

// perClass draws n of the labelled samples of each class (0 = all), in the order of
// the listing.
func (s samples) perClass(n int, seed uint64) samples {
	if n == 0 {
		return s
	}
	order := slices.Clone(s.at)
	rng := rand.New(rand.NewPCG(seed, 0x6b6e6e)) // its own stream
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	taken := make(map[int32]int)
	at := []int{}
	for _, i := range order {
		if label := s.of.Label(i); label >= 0 && taken[label] < n {
			taken[label]++
			at = append(at, i)
		}
	}
	slices.Sort(at)
	return samples{s.of, at}
}

// extracted is the features of a split.
type extracted struct {
	samples  []int
	labels   []int32
	hashes   []uint64
	features [][]float32 // of each feature
	leftOut  int
}

// collect extracts features of a split into memory; normalize scales each to length
// 1.
func (x *extractor) collect(ctx context.Context, s samples, v view, w watch, normalize bool) (*extracted, error) {
	e := &extracted{features: make([][]float32, len(x.features))}
	for i, length := range x.lengths {
		e.features[i] = make([]float32, 0, len(s.at)*length)
	}
	err := x.run(ctx, s, v, w, func(r rows) error {
		for i, f := range r.features {
			if normalize {
				f = r.unit(i, x.lengths[i])
			}
			e.features[i] = append(e.features[i], f...)
		}
		for _, sample := range r.samples {
			e.labels = append(e.labels, s.of.Label(sample))
		}
		e.samples, e.hashes = append(e.samples, r.samples...), append(e.hashes, r.hashes...)
		e.leftOut += r.tried - len(r.samples)
		return nil
	})
	return e, err
}

// told writes progress of the images of a split.
func told(out io.Writer, name string) func(done, all int, rate float64) {
	if out == nil {
		return nil
	}
	return func(done, all int, rate float64) {
		left := time.Duration(float64(all-done) / max(rate, 1e-9) * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(out, "features of the %s images: %d/%d, %.0f images/s, %v left\n", name, done, all, rate, left)
	}
}

// KNN evaluates the query encoder on a labelled data set with a test
// split: a result for each of the features, each k and each temperature, in this
// order, all of one pass over the images that says, too, which are in both splits.
func (e *Encoders) KNN(ctx context.Context, set *data.Set, o KNNOptions) ([]KNNResult, Leaks, error) {
	x, err := e.extractor(engine.Query, o.Features...)
	if err != nil {
		return nil, Leaks{}, err
	}
	defer x.Close()
	split := func(name string, s samples) (*extracted, error) {
		f, err := x.collect(ctx, s, plain(x.net.image), watch{told(o.Progress, name), o.Corrupt}, true)
		if err == nil && len(f.samples) == 0 {
			err = fmt.Errorf("none of %d can be decoded", len(s.at))
		}
		if err != nil {
			return nil, fmt.Errorf("features of the %s images: %w", name, err)
		}
		return f, nil
	}
	train, err := split("training", all(set.Train, o.Train).perClass(o.PerClass, o.Seed))
	if err != nil {
		return nil, Leaks{}, err
	}
	test, err := split("test", all(set.Test, o.Test))
	if err != nil {
		return nil, Leaks{}, err
	}
	voters := train.labelled(x.lengths)
	if err := enough(voters.labels, test.labels); err != nil {
		return nil, Leaks{}, err
	}
	r := KNNResult{
		ImageSize: x.net.image, Train: len(voters.samples), Test: len(test.samples), Classes: set.Train.Classes(),
		ImagesPerClass: o.PerClass, LeftOut: train.leftOut + test.leftOut,
	}
	for _, label := range test.labels {
		if label < 0 {
			r.Unlabeled++
		}
	}
	most := r.Train
	if o.Free {
		most = min(most, max(fewestNeighbours, smallestClass(voters.labels)))
	}
	var results []KNNResult
	var votes []eval.Vote
	for _, k := range o.K {
		for _, t := range o.Temperature {
			votes = append(votes, eval.Vote{Classes: r.Classes, K: min(k, most), Temperature: t})
		}
	}
	for i, feature := range o.Features {
		r.Feature = string(feature)
		accuracy := eval.KNN(e.engine.Products(), x.lengths[i],
			eval.Labelled{Features: voters.features[i], Labels: voters.labels}, eval.Labelled{Features: test.features[i], Labels: test.labels}, votes...)
		for j, v := range votes {
			r.Top1, r.Top5, r.K, r.Temperature = accuracy[j].Top1, accuracy[j].Top5, v.K, v.Temperature
			results = append(results, r)
		}
	}
	return results, leaks(set, train, test), nil
}

// fewestNeighbours vote whatever the smallest class has: of a long tail it may have one
// image.
const fewestNeighbours = 5

// smallestClass is how many of the labels, all of classes, the rarest class has.
func smallestClass(labels []int32) int {
	counts := make(map[int32]int)
	for _, l := range labels {
		counts[l]++
	}
	return slices.Min(slices.Collect(maps.Values(counts)))
}

// labelled is what is there of images that have a class: the others would be among the k
// nearest, and have no vote. Lengths are those of the features.
func (e *extracted) labelled(lengths []int) *extracted {
	if !slices.ContainsFunc(e.labels, func(l int32) bool { return l < 0 }) {
		return e
	}
	cut := &extracted{features: make([][]float32, len(lengths)), leftOut: e.leftOut}
	for i, label := range e.labels {
		if label < 0 {
			continue
		}
		cut.samples, cut.labels, cut.hashes = append(cut.samples, e.samples[i]), append(cut.labels, label), append(cut.hashes, e.hashes[i])
		for f, n := range lengths {
			cut.features[f] = append(cut.features[f], e.features[f][i*n:(i+1)*n]...)
		}
	}
	return cut
}

// enough says what a figure would be about nothing without: of the images that are
// left after limits and damage, training images of two classes, and a test image that
// has a class.
func enough(train, test []int32) error {
	classes := make(map[int32]bool)
	for _, l := range train {
		classes[l] = true
	}
	if delete(classes, -1); len(classes) < 2 {
		return fmt.Errorf("the %d training images that vote are of %d classes: kNN needs two at least (more images: --limit-train, --knn-images)", len(train), len(classes))
	}
	if !slices.ContainsFunc(test, func(l int32) bool { return l >= 0 }) {
		return fmt.Errorf("none of the %d test images that can be decoded has a class of the training images: there is nothing to measure", len(test))
	}
	return nil
}

// probeTop1 is the accuracy of a checkpoint's probe on the test images, in evaluation
// mode.
func (e *Encoders) probeTop1(ctx context.Context, set *data.Set) (float64, error) {
	x, err := e.extractor(engine.Query, eval.Backbone)
	if err != nil {
		return 0, err
	}
	defer x.Close()
	test, err := x.collect(ctx, all(set.Test, 0), plain(x.net.image), watch{}, false)
	if err != nil {
		return 0, fmt.Errorf("features of the test images: %w", err)
	}
	return probe.Top1(test.features[0], test.labels, e.from.Probe.Classes, e.from.Probe.Params), nil
}

// leaks finds what stands in both splits.
func leaks(set *data.Set, train, test *extracted) (l Leaks) {
	at := make(map[uint64]int, len(train.hashes))
	for i, h := range train.hashes {
		if _, seen := at[h]; !seen {
			at[h] = train.samples[i]
		}
	}
	for i, h := range test.hashes {
		if j, leaked := at[h]; leaked {
			if l.Leaked++; l.Leaked <= shownLeaks {
				l.Paths = append(l.Paths, set.Test.Path(test.samples[i])+" = "+set.Train.Path(j))
			}
		}
	}
	return l
}
