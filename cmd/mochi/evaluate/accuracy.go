package evaluate

import (
	"context"
	"io"

	"mochi/model/engine"
	"mochi/model/eval"
	"mochi/model/probe"
	"mochi/replica/data"
)

// AccuracyResult is how well a classifier does on a test split.
type AccuracyResult struct {
	Top1      float64 `json:"top1"`      // share of the test images whose class has the highest logit, 0…1
	Top5      float64 `json:"top5"`      // one of the five highest
	Test      int     `json:"test"`      // images that were classified
	LeftOut   int     `json:"left_out"`  // images that cannot be decoded
	Unlabeled int     `json:"unlabeled"` // images without a class of the training images: not counted
}

// Accuracy classifies the test images by a network whose outputs are logits, with the
// running statistics of BatchNorm. progress may be nil.
func (e *Encoders) Accuracy(ctx context.Context, set *data.Set, progress io.Writer) (r AccuracyResult, err error) {
	x, err := e.extractor(engine.Query, eval.Embedding)
	if err != nil {
		return r, err
	}
	defer x.Close()
	first, five, classes := 0, 0, x.lengths[0]
	err = x.run(ctx, all(set.Test, 0), plain(x.net.image), watch{progress: told(progress, "test")}, func(b rows) error {
		r.LeftOut += b.tried - len(b.samples)
		for i, sample := range b.samples {
			label := set.Test.Label(sample)
			if label < 0 || int(label) >= classes {
				r.Unlabeled++
				continue
			}
			r.Test++
			place := probe.Place(b.features[0][i*classes:(i+1)*classes], int(label))
			if place == 0 {
				first++
			}
			if place < 5 {
				five++
			}
		}
		return nil
	})
	r.Top1, r.Top5 = float64(first)/float64(max(1, r.Test)), float64(five)/float64(max(1, r.Test))
	return r, err
}
