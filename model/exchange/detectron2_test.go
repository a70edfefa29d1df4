package exchange

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"mochi/model/exchange/pickle"
	"mochi/model/network"
)

// resnetKeys are the keys and shapes of Detectron2's own ResNet-50
// (modeling/backbone/resnet.py: BasicStem, BottleneckBlock, build_resnet_backbone), by
// its rules and not by ours: a stem of one convolution, stages res2 to res5 of 3, 4, 6
// and 3 blocks with conv1 (1×1), conv2 (3×3), conv3 (1×1) and, where a stage begins, a
// shortcut; each convolution has a norm. stage says which module a part is in.
func resnetKeys(width int, module func(part string) string) map[string][]int {
	keys := map[string][]int{}
	conv := func(part, name string, out, in, kernel int) {
		prefix := module(part) + "." + name
		keys[prefix+".weight"] = []int{out, in, kernel, kernel}
		for _, of := range []string{"weight", "bias", "running_mean", "running_var"} {
			keys[prefix+".norm."+of] = []int{out}
		}
	}
	conv("stem", "conv1", width, 3, 7)
	in := width
	for stage, blocks := range []int{3, 4, 6, 3} {
		part, middle := fmt.Sprintf("res%d", stage+2), width<<stage
		for i := range blocks {
			name := fmt.Sprint(i)
			if i == 0 {
				conv(part, name+".shortcut", 4*middle, in, 1)
			}
			conv(part, name+".conv1", middle, in, 1)
			conv(part, name+".conv2", middle, middle, 3)
			conv(part, name+".conv3", 4*middle, middle, 1)
			in = 4 * middle
		}
	}
	return keys
}

// detectors are the keys of two of its models: all of the backbone's, and some of those
// that no encoder has.
func detectors(width int) map[string]map[string][]int {
	c4 := resnetKeys(width, func(part string) string {
		if part == "res5" { // Res5ROIHeads
			return "roi_heads.res5"
		}
		return "backbone." + part
	})
	fpn := resnetKeys(width, func(part string) string { return "backbone.bottom_up." + part })
	for i := 2; i <= 5; i++ {
		fpn[fmt.Sprintf("backbone.fpn_lateral%d.weight", i)] = []int{256, 4 * width << (i - 2), 1, 1}
		fpn[fmt.Sprintf("backbone.fpn_output%d.norm.weight", i)] = []int{256}
	}
	for _, other := range []string{
		"proposal_generator.rpn_head.conv.weight", "proposal_generator.rpn_head.objectness_logits.bias",
		"roi_heads.box_predictor.cls_score.weight", "roi_heads.res5.norm.weight", "roi_heads.res5.norm.running_var",
	} {
		c4[other] = []int{7}
	}
	return map[string]map[string][]int{"C4": c4, "FPN": fpn}
}

// match is align_and_update_state_dicts (checkpoint/c2_model_loading.py) with matching
// heuristics: a key of the model takes the longest key of the file that it is or ends
// with, after a dot; shapes must agree.
func match(t *testing.T, model map[string][]int, file map[string][]int) (taken map[string]string) {
	t.Helper()
	taken = map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(model)) {
		best := ""
		for name := range file {
			if (key == name || strings.HasSuffix(key, "."+name)) && len(name) > len(best) {
				best = name
			}
		}
		if best == "" {
			continue
		}
		if !slices.Equal(model[key], file[best]) {
			t.Errorf("%s %v would take %s %v", key, model[key], best, file[best])
		}
		for other, name := range taken {
			if name == best {
				t.Errorf("%s and %s both take %s", other, key, best)
			}
		}
		taken[key] = best
	}
	return taken
}

// Every array of the file has its place in Detectron2's models, and every tensor of
// their backbones has an array, of its shape.
func TestDetectron2FillsItsModels(t *testing.T) {
	const width = 4
	var b bytes.Buffer
	if err := Detectron2(&b, encoder(t, "resnet50", network.HeadMLP)); err != nil {
		t.Fatal(err)
	}
	root, err := pickle.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	file := map[string][]int{}
	for _, item := range field[*pickle.Dict](t, root.(*pickle.Dict), "model").Items {
		var shape []int
		for _, n := range item.Value.(*pickle.Object).State.(pickle.Tuple)[1].(pickle.Tuple) {
			switch n := n.(type) {
			case int:
				shape = append(shape, n)
			case int64:
				shape = append(shape, int(n))
			default:
				t.Fatalf("a length of type %T", n)
			}
		}
		file[item.Key.(string)] = shape
	}
	for name, model := range detectors(width) {
		taken := match(t, model, file)
		if len(taken) != 265 || len(file) != 265 {
			t.Errorf("%s: %d of its tensors take one of %d arrays, want 265", name, len(taken), len(file))
		}
		for key := range model {
			_, fills := taken[key]
			encoders := strings.Contains(key, ".stem.") || strings.Contains(key, ".res") && !strings.Contains(key, "res5.norm")
			if fills != encoders {
				t.Errorf("%s: %s takes %q", name, key, taken[key])
			}
		}
	}
}
