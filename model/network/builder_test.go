package network

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestBuilderReportsTheFirstMistake(t *testing.T) {
	for want, describe := range map[string]func(*Builder) (int, int){
		"c1: a 5×5 kernel does not fit into 3×3 pixels": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.Conv("c1", 0, 4, 5, 1, 0))
			return x, b.L2Normalize(x)
		},
		"shapes [2 3 3] and [3 3 3]": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.Add(b.Conv("c1", 0, 2, 3, 1, 1), b.Conv("c2", 0, 3, 3, 1, 1), false))
			return x, b.L2Normalize(x)
		},
		"stride 0": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.Conv("c1", 0, 2, 3, 0, 1))
			return x, b.L2Normalize(x)
		},
		"padding 2": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.MaxPool(0, 3, 1, 2))
			return x, b.L2Normalize(x)
		},
		"a vector is needed": func(b *Builder) (int, int) {
			return 0, b.Linear("fc", 0, 2)
		},
		"[C, H, W] is needed": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.GlobalAvgPool(0))
			return x, x
		},
		"must come from an L2 normalisation": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(0)
			return x, x
		},
		"no node 7": func(b *Builder) (int, int) {
			x := b.GlobalAvgPool(b.ReLU(7))
			return x, b.L2Normalize(x)
		},
	} {
		b := NewBuilder("test", 3, 3)
		feature, output := describe(b)
		if _, err := b.Build(feature, output); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := NewBuilder("test", 0, 3).Build(0, 0); err == nil || !strings.Contains(err.Error(), "0 channels") {
		t.Errorf("no channels: %v", err)
	}
}

// Kaiming fan-out for convolutions, torch's Linear, 1/0 for BatchNorm.
func TestInitialDistributions(t *testing.T) {
	n := build(t, "resnet18", options())
	params, buffers := n.Init(7)
	again, _ := n.Init(7)
	if !slices.Equal(params, again) {
		t.Error("the same seed gives other values")
	}
	other, _ := n.Init(8)
	for _, p := range n.Params {
		v := params[p.Offset : p.Offset+p.Size]
		mean, std, low, high := moments(v)
		switch p.Init {
		case InitOne, InitZero:
			want := float64(0)
			if strings.HasSuffix(p.Name, ".weight") {
				want = 1
			}
			if low != want || high != want {
				t.Errorf("%s in [%g, %g], want %g", p.Name, low, high, want)
			}
			continue
		case InitKaimingFanOut:
			want := math.Sqrt(2 / float64(p.Shape[0]*p.Shape[2]*p.Shape[3]))
			if tolerance := 4 * want / math.Sqrt(float64(p.Size)); math.Abs(std-want) > tolerance || math.Abs(mean) > tolerance {
				t.Errorf("%s: mean %g, σ %g, want 0, %g", p.Name, mean, std, want)
			}
		case InitLinearUniform:
			bound := 1 / math.Sqrt(512)
			if low < -bound || high > bound || low > -0.9*bound || high < 0.9*bound {
				t.Errorf("%s in [%g, %g], want to fill ±%g", p.Name, low, high, bound)
			}
		}
		if slices.Equal(v, other[p.Offset:p.Offset+p.Size]) {
			t.Errorf("%s does not depend on the seed", p.Name)
		}
	}
	for _, b := range n.Buffers {
		want := float32(0)
		if strings.HasSuffix(b.Name, "running_var") {
			want = 1
		}
		for _, x := range buffers[b.Offset : b.Offset+b.Size] {
			if x != want {
				t.Fatalf("%s holds %g, want %g", b.Name, x, want)
			}
		}
	}

	// The head does not change the backbone's start, nor do equal shapes share values.
	o := options()
	o.Head = HeadMLP
	mlp := build(t, "resnet18", o)
	q, _ := mlp.Init(7)
	c := mlp.Params[len(mlp.Params)-5]
	if !slices.Equal(q[:c.Offset], params[:c.Offset]) {
		t.Error("the backbone's start depends on the head")
	}
	x, y := n.Params[3], n.Params[6] // layer1.0.conv1, layer1.0.conv2
	if slices.Equal(params[x.Offset:x.Offset+x.Size], params[y.Offset:y.Offset+y.Size]) {
		t.Errorf("%s and %s start alike", x.Name, y.Name)
	}
}

func moments(v []float32) (mean, std, low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, x := range v {
		mean += float64(x)
		low, high = min(low, float64(x)), max(high, float64(x))
	}
	mean /= float64(len(v))
	for _, x := range v {
		std += (float64(x) - mean) * (float64(x) - mean)
	}
	return mean, math.Sqrt(std / float64(len(v))), low, high
}
