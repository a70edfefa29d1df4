package network

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func options() Options {
	return Options{Channels: 3, ImageSize: 224, Dim: 128, Head: HeadLinear}
}

func build(t *testing.T, arch string, o Options) *Network {
	t.Helper()
	n, err := Build(arch, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Names, order and shapes of the backbone are torchvision's.
func TestTorchvisionNames(t *testing.T) {
	for _, arch := range []string{"resnet18", "resnet50"} {
		golden, err := os.ReadFile(filepath.Join("testdata", arch+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimSpace(string(golden)), "\n")[1:]
		var got []string
		list := func(kind string, ts []Tensor) {
			for _, v := range ts {
				if !strings.HasPrefix(v.Name, "fc.") {
					got = append(got, kind+" "+v.Name+" "+strings.ReplaceAll(strings.Trim(fmt.Sprint(v.Shape), "[]"), " ", "x"))
				}
			}
		}
		n := build(t, arch, options())
		list("param", n.Params)
		list("buffer", n.Buffers)
		if len(got) != len(want) {
			t.Errorf("%s: %d tensors, torchvision has %d", arch, len(got), len(want))
		}
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%s: tensor %d is %q, torchvision's is %q", arch, i, got[i], want[i])
			}
		}
	}
}

// resnet101 is resnet50 with 23 blocks in layer3: names and shapes of the
// blocks that torchvision's resnet50 lacks are those of layer3.1.
func TestResNet101(t *testing.T) {
	list := func(n *Network) (lines []string) {
		for _, ts := range [][]Tensor{n.Params, n.Buffers} {
			for _, v := range ts {
				lines = append(lines, fmt.Sprint(v.Name, v.Shape))
			}
		}
		return lines
	}
	var want []string
	var block []string
	for _, line := range list(build(t, "resnet50", options())) {
		if strings.HasPrefix(line, "layer3.1.") {
			block = append(block, line)
		}
		if len(block) > 0 && (strings.HasPrefix(line, "layer4.0.conv1") || strings.HasPrefix(line, "layer4.0.bn1.running_mean")) {
			for i := 6; i < 23; i++ {
				for _, b := range block {
					want = append(want, strings.Replace(b, "layer3.1.", fmt.Sprintf("layer3.%d.", i), 1))
				}
			}
			block = nil
		}
		want = append(want, line)
	}
	n := build(t, "resnet101", Options{Channels: 3, ImageSize: 224, Dim: 128, Head: HeadLinear})
	if got := list(n); !slices.Equal(got, want) {
		t.Errorf("%d tensors, want %d", len(got), len(want))
	}
	if n := build(t, "resnet101", Options{Channels: 3, ImageSize: 224, Dim: 1000, Head: HeadLinear}); n.NumParams() != 44_549_160 {
		t.Errorf("%d parameters with 1000 classes, torchvision's has 44549160", n.NumParams())
	}
}

func TestParameterCounts(t *testing.T) {
	for _, c := range []struct {
		arch                     string
		size, backbone, features int
	}{
		{"resnet18", 224, 11_176_512, 512}, // torchvision, without fc
		{"resnet34", 224, 21_284_672, 512},
		{"resnet50", 224, 23_508_032, 2048},
		{"resnet101", 224, 44_549_160 - 2049*1000, 2048},
		{"resnet18-cifar", 32, 11_168_832, 512}, // resnet18 − 64·3·(7²−3²)
		{"resnet18-cifar-pad2", 32, 11_168_832, 512},
		{"resnet20", 28, 272_474 - 650, 64},
		{"resnet8", 28, 78_042 - 650, 64},
	} {
		for _, head := range []string{HeadLinear, HeadMLP} {
			n := build(t, c.arch, Options{Channels: 3, ImageSize: c.size, Dim: 10, Head: head})
			want := c.backbone + (c.features+1)*10
			if head == HeadMLP {
				want += (c.features + 1) * c.features
			}
			if n.NumParams() != want {
				t.Errorf("%s, %s head: %d parameters, want %d", c.arch, head, n.NumParams(), want)
			}
			if n.FeatureDim != c.features || n.Dim != 10 || n.Channels != 3 || n.ImageSize != c.size {
				t.Errorf("%s: sizes %d %d %d %d", c.arch, n.FeatureDim, n.Dim, n.Channels, n.ImageSize)
			}
		}
	}
}

func TestHeads(t *testing.T) {
	names := func(n *Network) (out []string) {
		for _, p := range n.Params {
			if strings.HasPrefix(p.Name, "fc.") {
				out = append(out, p.Name)
			}
		}
		return out
	}
	o := options()
	linear := build(t, "resnet18", o)
	if got := fmt.Sprint(names(linear)); got != "[fc.weight fc.bias]" {
		t.Errorf("linear head: %s", got)
	}
	o.Head = HeadMLP
	mlp := build(t, "resnet18", o)
	if got := fmt.Sprint(names(mlp)); got != "[fc.0.weight fc.0.bias fc.2.weight fc.2.bias]" {
		t.Errorf("mlp head: %s", got)
	}
	for _, n := range []*Network{linear, mlp} {
		if n.Nodes[n.Output].Op != OpL2Normalize || n.Nodes[n.Feature].Op != OpGlobalAvgPool {
			t.Errorf("feature is op %d, output op %d", n.Nodes[n.Feature].Op, n.Nodes[n.Output].Op)
		}
	}
}

// Every network: flat vectors without gaps, topological order, one owner a
// parameter.
func TestNetworksAreConsistent(t *testing.T) {
	for _, arch := range Architectures() {
		n := build(t, arch, Options{Channels: 1, ImageSize: 37, Dim: 5, Head: HeadMLP, Width: 3})
		for _, ts := range [][]Tensor{n.Params, n.Buffers} {
			offset := 0
			for _, p := range ts {
				if p.Offset != offset || p.Size != volume(p.Shape) {
					t.Errorf("%s: %s at %d of size %d, want offset %d", arch, p.Name, p.Offset, p.Size, offset)
				}
				offset += p.Size
			}
		}
		var params, buffers []int
		for i, node := range n.Nodes {
			params, buffers = append(params, node.Params...), append(buffers, node.Buffers...)
			for _, in := range node.Inputs {
				if in >= i {
					t.Errorf("%s: node %d reads node %d", arch, i, in)
				}
			}
		}
		for _, c := range []struct {
			owned []int
			all   []Tensor
		}{{params, n.Params}, {buffers, n.Buffers}} {
			if len(c.owned) != len(c.all) || !slices.IsSorted(c.owned) || len(slices.Compact(c.owned)) != len(c.all) {
				t.Errorf("%s: nodes own %v of %d tensors", arch, c.owned, len(c.all))
			}
		}
	}
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		arch string
		size int
		last []int // of the node before the global average pooling
	}{
		{"resnet50", 224, []int{2048, 7, 7}},
		{"resnet18", 32, []int{512, 1, 1}},
		{"resnet18-cifar", 32, []int{512, 4, 4}},
		{"resnet18-cifar-pad2", 32, []int{512, 5, 5}}, // 34 pixels after the stem
		{"resnet20", 28, []int{64, 7, 7}},
		{"resnet8", 29, []int{64, 8, 8}},
	} {
		n := build(t, c.arch, Options{Channels: 3, ImageSize: c.size, Dim: 8, Head: HeadLinear})
		if got := n.Nodes[n.Nodes[n.Feature].Inputs[0]].Out; !slices.Equal(got, c.last) {
			t.Errorf("%s at %d pixels ends in %v, want %v", c.arch, c.size, got, c.last)
		}
	}
}

func TestBuildListsEveryFault(t *testing.T) {
	_, err := Build("vgg", Options{Head: "none", Width: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"vgg"`, "resnet18, resnet34, resnet50, resnet101, resnet18-cifar, resnet18-cifar-pad2, resnet20, resnet8", "channels", "dim", `"none"`, "linear, mlp", "width"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
	for arch, low := range map[string]int{"resnet50": 32, "resnet18-cifar": 8, "resnet20": 4} {
		o := options()
		o.ImageSize = low - 1
		if _, err := Build(arch, o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at least %d", low)) {
			t.Errorf("%s at %d pixels: %v", arch, low-1, err)
		}
		o.ImageSize = low
		build(t, arch, o)
	}
}

func Example() {
	net, err := Build("resnet20", Options{Channels: 3, ImageSize: 32, Dim: 128, Head: HeadLinear})
	if err != nil {
		fmt.Println(err)
		return
	}
	params, buffers := net.Init(1)
	fmt.Println(net.Params[0].Name, net.Params[0].Shape)
	fmt.Println(len(params), len(buffers), net.FeatureDim)
	// Output:
	// conv1.weight [16 3 3 3]
	// 280144 1568 64
}
