package exchange

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mochi/model/exchange/array"
)

// layout is how a library names the parts of its checkpoints.
type layout struct {
	name       string
	query, key string // what stands before the names of the backbones; key may be ""
	head       string // before the projection head's; "": the head is the backbone's fc
	keyHead    string
	marks      []string // other prefixes that only this library has
	classifier bool     // fc, if there is one, is a classifier and no head
	wideStem   bool     // a 3×3 stem pads by 2
}

// layouts are the known ones; where several fit, the one with most names wins,
// else the first.
func layouts() []layout {
	return []layout{
		{name: "MoCo", query: "encoder_q.", key: "encoder_k."},
		{name: "MMPreTrain", query: "backbone."},
		{name: "lightly", query: "backbone.", key: "key_backbone.", head: "projection_head.layers.", keyHead: "key_projection_head.layers.", marks: []string{"online_classifier."}},
		{name: "lightly", query: "backbone.", key: "backbone_momentum.", head: "projection_head.layers.", keyHead: "projection_head_momentum.layers."},
		{name: "solo-learn", query: "backbone.", key: "momentum_backbone.", head: "projector.", keyHead: "momentum_projector.", marks: []string{"classifier.", "momentum_classifier."}, wideStem: true},
		{name: "solo-learn", query: "encoder.", key: "momentum_encoder.", head: "projector.", keyHead: "momentum_projector.", marks: []string{"classifier."}, wideStem: true},
		{name: "transformers", query: "resnet.", classifier: true},
		// Of a file from which somebody cut all "backbone.", the momentum encoder's too.
		{name: "torchvision or timm", key: "momentum_", classifier: true},
	}
}

// wrappers are what modules around a model put before its names:
// DistributedDataParallel, torch.compile, training scripts.
var wrappers = []string{"module.", "_orig_mod.", "model."}

// unwrapped are the arrays without the wrappers' prefixes.
func unwrapped(arrays map[string]*array.Array) map[string]*array.Array {
	plain := map[string]*array.Array{}
	for name, a := range arrays {
		short := name
		for i := 0; i < len(wrappers); i++ {
			if rest, ok := strings.CutPrefix(short, wrappers[i]); ok {
				short, i = rest, -1
			}
		}
		if _, twice := arrays[short]; twice {
			short = name // it is there under the short name too, and another tensor
		}
		plain[short] = a
	}
	return plain
}

// under are the names that begin with prefix, without it.
func under(arrays map[string]*array.Array, prefix string) []string {
	var list []string
	for name := range arrays {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			list = append(list, rest)
		}
	}
	slices.Sort(list)
	return list
}

// recognise finds the layout of a file and how it names the layers of the
// backbone.
func recognise(arrays map[string]*array.Array) (best layout, names naming, ok bool) {
	most := -1
	for _, l := range layouts() {
		n, known := namingOf(under(arrays, l.query))
		if !known {
			continue
		}
		score := 0
		for _, prefix := range append([]string{l.key, l.head, l.keyHead}, l.marks...) {
			if prefix != "" {
				score += len(under(arrays, prefix))
			}
		}
		if score > most {
			most, best, names, ok = score, l, n, true
		}
	}
	return best, names, ok
}

// naming gives torchvision's name of a layer, "" for what is none.
type naming func(name string) string

// namingOf recognises how the names of a backbone are made.
func namingOf(list []string) (naming, bool) {
	has := func(name string) bool { return slices.Contains(list, name) }
	switch {
	case has("conv1.weight"):
		return modules, true
	case has("v1.weight") && has("layer1.0.conv1.weight"):
		return stripped, true
	case has("0.weight") && has("2.0.conv1.weight"):
		return sequence(2), true // conv1, bn1, layer1 …
	case has("0.weight") && has("4.0.conv1.weight"):
		return sequence(4), true // conv1, bn1, relu, maxpool, layer1 …
	case has("embedder.embedder.convolution.weight"):
		return transformers, true
	}
	return nil, false
}

// modules are torchvision's own; some implementations say shortcut.
func modules(name string) string { return strings.Replace(name, ".shortcut.", ".downsample.", 1) }

// stripped are those of files made with name.lstrip("backbone."), which cuts not
// a prefix but letters.
func stripped(name string) string {
	if name == "v1.weight" {
		return "conv1.weight"
	}
	if rest, ok := strings.CutPrefix(name, "1."); ok {
		return "bn1." + rest
	}
	return modules(name)
}

// sequence are those of torch.nn.Sequential(*children), whose number first is
// layer1.
func sequence(first int) naming {
	return func(name string) string {
		index, rest, ok := strings.Cut(name, ".")
		n, err := strconv.Atoi(index)
		switch {
		case !ok || err != nil:
			return name
		case n == 0:
			return "conv1." + rest
		case n == 1:
			return "bn1." + rest
		case n >= first:
			return modules("layer" + strconv.Itoa(n-first+1) + "." + rest)
		}
		return name
	}
}

var transformersLayer = regexp.MustCompile(`^encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.(convolution|normalization)\.(.*)$`)

// transformers are those of transformers.ResNetModel.
func transformers(name string) string {
	for from, to := range map[string]string{"embedder.embedder.convolution.": "conv1.", "embedder.embedder.normalization.": "bn1."} {
		if rest, ok := strings.CutPrefix(name, from); ok {
			return to + rest
		}
	}
	m := transformersLayer.FindStringSubmatch(name)
	if m == nil {
		return name
	}
	stage, err := strconv.Atoi(m[1])
	if err != nil {
		return name
	}
	block := "layer" + strconv.Itoa(stage+1) + "." + m[2] + "."
	if m[4] != "" {
		return block + "downsample." + map[string]string{"convolution": "0.", "normalization": "1."}[m[5]] + m[6]
	}
	layer, err := strconv.Atoi(m[3])
	if err != nil {
		return name
	}
	return block + map[string]string{"convolution": "conv", "normalization": "bn"}[m[5]] + strconv.Itoa(layer+1) + "." + m[6]
}
