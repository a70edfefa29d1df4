package exchange

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/exchange/safetensors"
	"mochi/model/exchange/torch"
	"mochi/model/network"
)

// encoder is one whose every number is another.
func encoder(t *testing.T, arch, head string) Encoder {
	t.Helper()
	net, err := network.Build(arch, network.Options{Channels: 3, ImageSize: 64, Dim: 8, Head: head, Width: 4})
	if err != nil {
		t.Fatal(err)
	}
	e := Encoder{Net: net, Params: make([]float32, net.NumParams()), Buffers: make([]float32, net.NumBuffers()), Steps: 33}
	for i := range e.Params {
		e.Params[i] = float32(i)
	}
	for i := range e.Buffers {
		e.Buffers[i] = float32(i) + 0.5
	}
	return e
}

// written is the value of a file of torch.save, which is made twice.
func written(t *testing.T, write func(w *bytes.Buffer) error) *pickle.Dict {
	t.Helper()
	var a, b bytes.Buffer
	if err := write(&a); err != nil {
		t.Fatal(err)
	}
	if err := write(&b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Fatalf("two files of one encoder differ (%v)", err)
	}
	root, err := torch.Open(bytes.NewReader(a.Bytes()), int64(a.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return root.(*pickle.Dict)
}

// holds checks that a state_dict has the tensors of an encoder under a prefix, and
// returns their names in order.
func holds(t *testing.T, d *pickle.Dict, e Encoder, prefix string, head bool) []string {
	t.Helper()
	var names []string
	for _, list := range []struct {
		tensors []network.Tensor
		flat    []float32
	}{{e.Net.Params, e.Params}, {e.Net.Buffers, e.Buffers}} {
		for _, w := range list.tensors {
			v, ok := d.Get(prefix + w.Name)
			if isHead := strings.HasPrefix(w.Name, "fc."); isHead && !head {
				if ok {
					t.Errorf("%s is there", w.Name)
				}
				continue
			}
			if !ok {
				t.Errorf("%s%s is missing", prefix, w.Name)
				continue
			}
			a := v.(*torch.Tensor).Array()
			got, err := a.Float32s()
			if err != nil || !slices.Equal(a.Shape, w.Shape) || !slices.Equal(got, list.flat[w.Offset:w.Offset+w.Size]) {
				t.Errorf("%s: shape %v, %v", w.Name, a.Shape, err)
			}
		}
	}
	for _, i := range d.Items {
		if name, ok := strings.CutPrefix(i.Key.(string), prefix); ok {
			names = append(names, name)
		}
	}
	return names
}

func TestTorchvision(t *testing.T) {
	for arch, counters := range map[string]int{"resnet18": 20, "resnet20": 21, "resnet50": 53} {
		e := encoder(t, arch, network.HeadMLP)
		d := written(t, func(w *bytes.Buffer) error { return Torchvision(w, e) })
		names := holds(t, d, e, "", false)
		want := len(e.Net.Params) - 4 + len(e.Net.Buffers) + counters
		if len(names) != want || !d.Ordered {
			t.Errorf("%s: %d tensors, want %d", arch, len(names), want)
		}
		// The order is that of torch's modules.
		if got := fmt.Sprint(names[:7]); got != "[conv1.weight bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked layer1.0.conv1.weight]" {
			t.Errorf("%s begins with %s", arch, got)
		}
	}
}

func TestMoCo(t *testing.T) {
	for _, head := range network.Heads() {
		q, k := encoder(t, "resnet18", head), encoder(t, "resnet18", head)
		k.Params = slices.Clone(q.Params)
		k.Params[0] = -1
		m := MoCoState{Query: q, Key: k, Momentum: slices.Clone(q.Params), Queue: []float32{1, 2, 3, 4, 5, 6}, Dim: 2, K: 3, Ptr: 1, Epoch: 4, SGD: SGD{0.5, 0.9, 1e-4}}
		d := written(t, func(w *bytes.Buffer) error { return MoCo(w, m) })
		state := field[*pickle.Dict](t, d, "state_dict")
		holds(t, state, q, "module.encoder_q.", true)
		holds(t, state, k, "module.encoder_k.", true)
		queue, err := field[*torch.Tensor](t, state, "module.queue").Array().Float32s()
		if err != nil || !slices.Equal(queue, m.Queue) {
			t.Errorf("queue %v, %v", queue, err)
		}
		if ptr, err := field[*torch.Tensor](t, state, "module.queue_ptr").Array().Int64s(); err != nil || !slices.Equal(ptr, []int64{1}) {
			t.Errorf("queue_ptr %v, %v", ptr, err)
		}
		if field[int64](t, d, "epoch") != 4 || field[string](t, d, "arch") != "resnet18" {
			t.Error("epoch or arch")
		}
		optimizer := field[*pickle.Dict](t, d, "optimizer")
		buffers := field[*pickle.Dict](t, optimizer, "state")
		group := field[*pickle.List](t, optimizer, "param_groups").Items[0].(*pickle.Dict)
		if n := len(field[*pickle.List](t, group, "params").Items); n != 2*len(q.Net.Params) || len(buffers.Items) != len(q.Net.Params) {
			t.Errorf("%d parameters, %d with momentum, of 2 × %d", n, len(buffers.Items), len(q.Net.Params))
		}
		for i, p := range q.Net.Params {
			if buffers.Items[i].Key != int64(i) {
				t.Errorf("state %v, want %d", buffers.Items[i].Key, i)
			}
			got, err := field[*torch.Tensor](t, buffers.Items[i].Value.(*pickle.Dict), "momentum_buffer").Array().Float32s()
			if err != nil || !slices.Equal(got, m.Momentum[p.Offset:p.Offset+p.Size]) {
				t.Errorf("momentum of %s: %v", p.Name, err)
			}
		}
		if lr := field[float64](t, group, "lr"); lr != 0.5 {
			t.Errorf("lr %g", lr)
		}
	}
}

func field[T any](t *testing.T, d *pickle.Dict, name string) T {
	t.Helper()
	v, _ := d.Get(name)
	of, ok := v.(T)
	if !ok {
		t.Fatalf("%s is a %T", name, v)
	}
	return of
}

func TestDetectron2(t *testing.T) {
	e := encoder(t, "resnet50", network.HeadMLP)
	var b bytes.Buffer
	if err := Detectron2(&b, e); err != nil {
		t.Fatal(err)
	}
	root, err := pickle.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	if !field[bool](t, root.(*pickle.Dict), "matching_heuristics") {
		t.Error("without heuristics nothing would be matched")
	}
	model := field[*pickle.Dict](t, root.(*pickle.Dict), "model")
	if n := len(model.Items); n != 265 {
		t.Errorf("%d arrays, want 53 convolutions and 4 × 53 of BatchNorm", n)
	}
	// Names of Detectron2's own ResNet (modeling/backbone/resnet.py), one of each kind.
	for name, want := range map[string]string{
		"stem.conv1.weight":                 "conv1.weight",
		"stem.conv1.norm.running_var":       "bn1.running_var",
		"res2.0.conv1.weight":               "layer1.0.conv1.weight",
		"res2.0.conv3.norm.bias":            "layer1.0.bn3.bias",
		"res2.0.shortcut.weight":            "layer1.0.downsample.0.weight",
		"res5.0.shortcut.norm.running_mean": "layer4.0.downsample.1.running_mean",
		"res4.5.conv2.norm.weight":          "layer3.5.bn2.weight",
		"res5.2.conv2.weight":               "layer4.2.conv2.weight",
		"res3.0.conv1.norm.running_mean":    "layer2.0.bn1.running_mean",
		"res3.3.conv3.weight":               "layer2.3.conv3.weight",
		"res4.0.shortcut.norm.running_var":  "layer3.0.downsample.1.running_var",
		"res3.0.shortcut.norm.weight":       "layer2.0.downsample.1.weight",
		"stem.conv1.norm.weight":            "bn1.weight",
		"res5.1.conv1.norm.running_mean":    "layer4.1.bn1.running_mean",
	} {
		o := field[*pickle.Object](t, model, name)
		state := o.State.(pickle.Tuple)
		var expected []byte
		for _, v := range e.StateDict("", false) {
			if v.Name == want {
				expected = v.Bytes()
			}
		}
		if !bytes.Equal(state[4].([]byte), expected) || len(expected) == 0 {
			t.Errorf("%s is not %s", name, want)
		}
	}
	if err := Detectron2(&b, encoder(t, "resnet20", network.HeadMLP)); err == nil || !strings.Contains(err.Error(), "stem") {
		t.Errorf("a stem that Detectron2 has not: %v", err)
	}
}

func TestTimm(t *testing.T) {
	e := encoder(t, "resnet50", network.HeadLinear)
	files, err := Timm(e, Preprocessing{Size: 224, Resize: 256, Mean: [3]float32{0.485, 0.456, 0.406}, Std: [3]float32{0.229, 0.224, 0.225}}, "From a test.")
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(files[0].Content, &config); err != nil {
		t.Fatal(err)
	}
	cfg := config["pretrained_cfg"].(map[string]any)
	if config["architecture"] != "resnet50" || config["num_classes"] != 0. || config["num_features"] != 128. || cfg["crop_pct"] != 0.875 || fmt.Sprint(cfg["mean"]) != "[0.485 0.456 0.406]" {
		t.Errorf("config.json: %s", files[0].Content)
	}
	weights := files[1].Content
	f, err := safetensors.Open(bytes.NewReader(weights), int64(len(weights)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Metadata["format"] != "pt" || len(f.Arrays) != 318 {
		t.Errorf("metadata %v, %d tensors (torchvision's resnet50 without fc has 318)", f.Metadata, len(f.Arrays))
	}
	for _, v := range e.StateDict("", false) {
		a := f.Arrays[v.Name]
		if got, err := a.Float32s(); a.Type == array.F32 && (err != nil || !slices.Equal(got, v.Floats)) {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	if _, err := Timm(encoder(t, "resnet18-cifar", network.HeadMLP), Preprocessing{Size: 32, Resize: 32}, ""); err == nil {
		t.Error("a network that timm has not")
	}
}

// timm resizes the shorter side to ⌊size / crop_pct⌋: that must be what evaluation
// resizes it to.
func TestCropShare(t *testing.T) {
	for size := 1; size <= 1024; size++ {
		resize := size
		if size >= 112 {
			resize = size * 8 / 7
		}
		if got := int(float64(size) / cropShare(Preprocessing{Size: size, Resize: resize})); got != resize {
			t.Errorf("size %d: timm would resize to %d, evaluation to %d", size, got, resize)
		}
	}
}
