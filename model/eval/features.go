package eval

import (
	"context"
	"fmt"
	"math"
	"slices"

	"mochi/model/engine"
	"mochi/model/network"
)

// Feature says which output of the encoder is evaluated.
type Feature string

// The features of the command line.
const (
	Backbone  Feature = "backbone"  // after global average pooling, [FeatureDim]
	Embedding Feature = "embedding" // after the head, [Dim]
)

// Len is the length of a feature of net, or an error that lists the known
// features.
func (f Feature) Len(net *network.Network) (int, error) {
	switch f {
	case Backbone:
		return net.FeatureDim, nil
	case Embedding:
		return net.Dim, nil
	}
	return 0, fmt.Errorf("feature: unknown %q; known are %s, %s", f, Backbone, Embedding)
}

// Images are the samples that features are extracted of.
type Images struct {
	N int // samples
	// Fill fills dst, [count, C, H, W], with the samples first … first+count−1; the
	// last batch may be smaller than the program's.
	Fill func(first, count int, dst []float32) error
	// Progress, if not nil, is told the number of samples done after every batch.
	Progress func(done int)
}

// Features extracts features of images with a program compiled in mode Eval, in
// one pass: for each of features a new slice [n, length], rows scaled to length
// 1. ctx is asked between batches.
func Features(ctx context.Context, program engine.Program, net *network.Network, features []Feature, images Images) ([][]float32, error) {
	n := images.N
	spec := program.Spec()
	if spec.Mode != engine.Eval {
		return nil, fmt.Errorf("features: the program is compiled for training, not for evaluation")
	}
	embeddings := make([]float32, spec.Batch*net.Dim)
	backbone := make([]float32, spec.Batch*net.FeatureDim)
	out, from := make([][]float32, len(features)), make([][]float32, len(features))
	for i, f := range features {
		length, err := f.Len(net)
		if err != nil {
			return nil, err
		}
		if out[i], from[i] = make([]float32, n*length), embeddings; f == Backbone {
			from[i] = backbone
		}
	}
	pixels := net.Channels * net.ImageSize * net.ImageSize
	batch := make([]float32, spec.Batch*pixels)
	for first := 0; first < n; first += spec.Batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		count := min(spec.Batch, n-first)
		clear(batch[count*pixels:]) // rows of a short last batch that nobody reads
		if err := images.Fill(first, count, batch[:count*pixels]); err != nil {
			return nil, fmt.Errorf("images of samples %d to %d: %w", first, first+count-1, err)
		}
		if err := program.Forward(batch, embeddings); err != nil {
			return nil, fmt.Errorf("features of samples %d to %d: %w", first, first+count-1, err)
		}
		if slices.Contains(features, Backbone) {
			program.Features(backbone)
		}
		for i := range features {
			length := len(from[i]) / spec.Batch
			dst := out[i][first*length : (first+count)*length]
			copy(dst, from[i])
			for s := range count {
				if err := normalise(dst[s*length : (s+1)*length]); err != nil {
					return nil, fmt.Errorf("feature of sample %d: %w", first+s, err)
				}
			}
		}
		if images.Progress != nil {
			images.Progress(first + count)
		}
	}
	return out, nil
}

// normalise scales a row to length 1; a zero row stays zero.
func normalise(row []float32) error {
	var sum float64
	for _, x := range row {
		sum += float64(x) * float64(x)
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return fmt.Errorf("it is not finite: the encoder has diverged")
	}
	scale := 1 / math.Max(math.Sqrt(sum), 1e-12)
	for i := range row {
		row[i] = float32(float64(row[i]) * scale)
	}
	return nil
}
