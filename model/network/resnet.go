package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Heads of an encoder.
const (
	HeadLinear = "linear" // feature → d; parameters fc.weight, fc.bias
	HeadMLP    = "mlp"    // feature → feature → ReLU → d; parameters fc.0.*, fc.2.* (MoCo-v2)

	// HeadClasses is that of a supervised network, feature → d logits, which are not
	// normalised; parameters fc.weight, fc.bias. A job has it by other means than --head.
	HeadClasses = "classes"
)

// Heads lists the heads of encoders.
func Heads() []string { return []string{HeadLinear, HeadMLP} }

// Options are the sizes of an encoder.
type Options struct {
	Channels  int    // of the images; 3 for RGB
	ImageSize int    // pixels; images are square
	Dim       int    // d, length of an embedding
	Head      string // HeadLinear, HeadMLP or HeadClasses
	Width     int    // channels of the stem and of layer1; 0 = the architecture's own (64, or 16 for resnet20 and resnet8)
}

// resnet is a residual network of the torchvision family (He et al. 2016).
type resnet struct {
	name       string
	bottleneck bool  // 1×1, 3×3, 1×1 blocks of expansion 4; else two 3×3
	blocks     []int // a stage each; the first has stride 1, every other stride 2
	width      int   // channels of the first stage, doubled in each later one
	imagenet   bool  // 7×7 stride-2 stem and 3×3 stride-2 max-pool; else a 3×3 stem
	stemPad    int   // more padding of a 3×3 stem than 1
}

// WideStem ends the name of a network whose 3×3 stem pads by 2: its images grow by
// two pixels. It is for checkpoints of solo-learn, which has that stem for small
// images; their tensors fit the network without it, and would score lower there.
const WideStem = "-pad2"

func resnets() []resnet {
	return []resnet{
		{name: "resnet18", blocks: []int{2, 2, 2, 2}, width: 64, imagenet: true},
		{name: "resnet34", blocks: []int{3, 4, 6, 3}, width: 64, imagenet: true},
		{name: "resnet50", blocks: []int{3, 4, 6, 3}, width: 64, imagenet: true, bottleneck: true},
		{name: "resnet101", blocks: []int{3, 4, 23, 3}, width: 64, imagenet: true, bottleneck: true},
		{name: "resnet18-cifar", blocks: []int{2, 2, 2, 2}, width: 64},
		{name: "resnet18-cifar" + WideStem, blocks: []int{2, 2, 2, 2}, width: 64, stemPad: 1},
		{name: "resnet20", blocks: []int{3, 3, 3}, width: 16},
		{name: "resnet8", blocks: []int{1, 1, 1}, width: 16},
	}
}

// Architectures lists the names that Build knows.
func Architectures() []string {
	var names []string
	for _, r := range resnets() {
		names = append(names, r.name)
	}
	return names
}

// LargeImages says whether the network arch is made for images of ImageNet's
// size: its stem reduces them 4-fold before the first stage.
func LargeImages(arch string) bool {
	return slices.ContainsFunc(resnets(), func(r resnet) bool { return r.name == arch && r.imagenet })
}

// SmallestImage is the fewest pixels a side that the network arch can take: at
// half of them its last stage would see less than one pixel of the image.
// 0 for a name that Build does not know.
func SmallestImage(arch string) int {
	for _, r := range resnets() {
		if r.name == arch {
			return r.reduction()
		}
	}
	return 0
}

// Build describes the encoder arch: backbone, head and L2 normalisation. The
// error lists every fault of arch and o.
func Build(arch string, o Options) (*Network, error) {
	all := resnets()
	i := slices.IndexFunc(all, func(r resnet) bool { return r.name == arch })
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if i < 0 {
		fault("arch: unknown network %q; known are %s", arch, strings.Join(Architectures(), ", "))
	} else if low := all[i].reduction(); o.ImageSize < low {
		fault("image-size: %d pixels are too few for %s, which reduces images %d-fold; use at least %d", o.ImageSize, arch, low, low)
	}
	if o.Channels < 1 {
		fault("channels: %d; at least 1 is needed (3 for RGB)", o.Channels)
	}
	if o.Dim < 1 {
		fault("dim: %d; an embedding needs at least 1", o.Dim)
	}
	if o.Head != HeadClasses && !slices.Contains(Heads(), o.Head) {
		fault("head: unknown head %q; known are %s", o.Head, strings.Join(Heads(), ", "))
	}
	if o.Width < 0 {
		fault("width: %d; use 0 for the network's own", o.Width)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	r := all[i]
	if o.Width > 0 {
		r.width = o.Width
	}
	b := NewBuilder(arch, o.Channels, o.ImageSize)
	feature := r.backbone(b)
	return b.Build(feature, head(b, feature, o))
}

// reduction is the factor between the image's and the last stage's side.
func (r resnet) reduction() int {
	n := 1 << (len(r.blocks) - 1)
	if r.imagenet {
		n *= 4
	}
	return n
}

func (r resnet) backbone(b *Builder) int {
	var x int
	if r.imagenet {
		x = b.Conv("conv1", 0, r.width, 7, 2, 3)
		x = b.BatchNorm("bn1", x, true)
		x = b.MaxPool(x, 3, 2, 1)
	} else {
		x = b.Conv("conv1", 0, r.width, 3, 1, 1+r.stemPad)
		x = b.BatchNorm("bn1", x, true)
	}
	in := r.width
	for stage, blocks := range r.blocks {
		width := r.width << stage
		for i := range blocks {
			stride := 1
			if stage > 0 && i == 0 {
				stride = 2
			}
			name := fmt.Sprintf("layer%d.%d", stage+1, i)
			if r.bottleneck {
				x, in = bottleneck(b, name, x, in, width, stride)
			} else {
				x, in = basic(b, name, x, in, width, stride)
			}
		}
	}
	return b.GlobalAvgPool(x)
}

// basic is torchvision's BasicBlock; it returns its node and channels.
func basic(b *Builder, name string, x, in, width, stride int) (node, out int) {
	y := b.Conv(name+".conv1", x, width, 3, stride, 1)
	y = b.BatchNorm(name+".bn1", y, true)
	y = b.Conv(name+".conv2", y, width, 3, 1, 1)
	y = b.BatchNorm(name+".bn2", y, false)
	return b.Add(y, shortcut(b, name, x, in, width, stride), true), width
}

// bottleneck is torchvision's Bottleneck: the stride is in the 3×3.
func bottleneck(b *Builder, name string, x, in, width, stride int) (node, out int) {
	const expansion = 4
	out = width * expansion
	y := b.Conv(name+".conv1", x, width, 1, 1, 0)
	y = b.BatchNorm(name+".bn1", y, true)
	y = b.Conv(name+".conv2", y, width, 3, stride, 1)
	y = b.BatchNorm(name+".bn2", y, true)
	y = b.Conv(name+".conv3", y, out, 1, 1, 0)
	y = b.BatchNorm(name+".bn3", y, false)
	return b.Add(y, shortcut(b, name, x, in, out, stride), true), out
}

// shortcut is x itself, or its projection where the shape changes. It comes
// after the block's own layers, as in torchvision's parameter order.
func shortcut(b *Builder, name string, x, in, out, stride int) int {
	if stride == 1 && in == out {
		return x
	}
	y := b.Conv(name+".downsample.0", x, out, 1, stride, 0)
	return b.BatchNorm(name+".downsample.1", y, false)
}

func head(b *Builder, feature int, o Options) int {
	x := feature
	if o.Head == HeadMLP {
		hidden, _ := b.vector("fc.0", x)
		x = b.Linear("fc.0", x, hidden)
		x = b.ReLU(x)
		x = b.Linear("fc.2", x, o.Dim)
	} else {
		x = b.Linear("fc", x, o.Dim)
	}
	if o.Head == HeadClasses {
		return x
	}
	return b.L2Normalize(x)
}
