package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/exchange/safetensors"
	"mochi/model/exchange/torch"
	"mochi/model/network"
)

// small is an encoder of a network whose file is small, every number another.
func small(t *testing.T, arch, head string, from float32) Encoder {
	t.Helper()
	net, err := network.Build(arch, network.Options{Channels: 3, ImageSize: 32, Dim: 8, Head: head})
	if err != nil {
		t.Fatal(err)
	}
	e := Encoder{Net: net, Params: make([]float32, net.NumParams()), Buffers: make([]float32, net.NumBuffers()), Steps: 5}
	for i := range e.Params {
		e.Params[i] = from + float32(i)/4
	}
	for i := range e.Buffers {
		e.Buffers[i] = from + float32(i)/2
	}
	return e
}

// saved is a file of write.
func saved(t *testing.T, write func(w *bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return put(t, b.Bytes())
}

func put(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// imported reads a file for a job with a head that nothing in it has.
func imported(path string, o ImportOptions) (*Imported, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if o.Head == "" {
		o.Head, o.Dim = network.HeadLinear, 3
	}
	return Import(f, o)
}

// What MoCo's export writes comes back to the bit, the optimiser included.
func TestImportOfAnExport(t *testing.T) {
	for _, head := range network.Heads() {
		m := MoCoState{Query: small(t, "resnet8", head, 1), Key: small(t, "resnet8", head, 2), Dim: 8, K: 3, Ptr: 2, Epoch: 4}
		m.Momentum = slices.Clone(m.Key.Params)
		for i := range m.Dim * m.K {
			m.Queue = append(m.Queue, float32(i))
		}
		got, err := imported(saved(t, func(w *bytes.Buffer) error { return MoCo(w, m) }), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i, pair := range [][2][]float32{{got.QueryParams, m.Query.Params}, {got.QueryBuffers, m.Query.Buffers}, {got.KeyParams, m.Key.Params}, {got.KeyBuffers, m.Key.Buffers}, {got.Momentum, m.Momentum}} {
			if !slices.Equal(pair[0], pair[1]) {
				t.Errorf("%s: vector %d differs", head, i)
			}
		}
		if got.Queue[0] != 0 || got.Queue[1] != 3 || got.Queue[8] != 1 || got.K != 3 || got.Ptr != 2 || got.Epoch != 4 {
			t.Errorf("queue %v, K %d, pointer %d, epoch %d", got.Queue, got.K, got.Ptr, got.Epoch)
		}
		if got.Layout != "MoCo" || got.Arch != "resnet8" || got.Head != head || len(got.Missing)+len(got.Unexpected) > 0 {
			t.Errorf("%s of %s, head %s, missing %v, unexpected %v", got.Arch, got.Layout, got.Head, got.Missing, got.Unexpected)
		}
	}
}

// headAt are a head's tensors under another prefix.
func headAt(e Encoder, prefix string) map[string]array.Value {
	list := map[string]array.Value{}
	for _, v := range e.StateDict("", true) {
		if name, ok := strings.CutPrefix(v.Name, "fc."); ok {
			list[prefix+name] = v
		}
	}
	return list
}

// backboneAt are a backbone's tensors under other names.
func backboneAt(e Encoder, rename func(name string) string) map[string]array.Value {
	list := map[string]array.Value{}
	for _, v := range e.StateDict("", false) {
		list[rename(v.Name)] = v
	}
	return list
}

func prefixed(prefix string) func(string) string {
	return func(name string) string { return prefix + name }
}

// sequential are the names of Sequential(*children).
func sequential(prefix string, layer1 int) func(string) string {
	return func(name string) string {
		for from, to := range map[string]int{"conv1.": 0, "bn1.": 1, "layer1.": layer1, "layer2.": layer1 + 1, "layer3.": layer1 + 2} {
			if rest, ok := strings.CutPrefix(name, from); ok {
				return fmt.Sprint(prefix, to, ".", rest)
			}
		}
		panic(name)
	}
}

func merged(list ...map[string]array.Value) map[string]array.Value {
	all := map[string]array.Value{}
	for _, m := range list {
		maps.Copy(all, m)
	}
	return all
}

func tensor(shape ...int) array.Value {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return array.Value{Shape: shape, Floats: make([]float32, n)}
}

// Each library's names, and what of the file is taken.
func TestImportLayouts(t *testing.T) {
	q, k := small(t, "resnet8", network.HeadMLP, 1), small(t, "resnet8", network.HeadMLP, 2)
	for _, c := range []struct {
		name, layout string
		tensors      map[string]array.Value
		head, key    bool
		unexpected   int
	}{
		{"MoCo, released", "MoCo", backboneAt(q, prefixed("module.encoder_q.")), false, false, 0},
		{"torchvision", "torchvision or timm", backboneAt(q, prefixed("")), false, false, 0},
		{"torchvision with a classifier", "torchvision or timm", merged(backboneAt(q, prefixed("")), map[string]array.Value{"fc.weight": tensor(10, 64), "fc.bias": tensor(10)}), false, false, 2},
		{"lightly", "lightly", merged(backboneAt(q, prefixed("backbone.")), headAt(q, "projection_head.layers."), backboneAt(k, prefixed("key_backbone.")), headAt(k, "key_projection_head.layers.")), true, true, 0},
		{"lightly, tutorial", "lightly", merged(backboneAt(q, sequential("backbone.", 4)), headAt(q, "projection_head.layers."), backboneAt(k, sequential("backbone_momentum.", 4)), headAt(k, "projection_head_momentum.layers.")), true, true, 0},
		{"lightly, CIFAR", "lightly", merged(backboneAt(q, func(name string) string {
			return strings.Replace(sequential("model.backbone.", 2)(name), "downsample", "shortcut", 1)
		}), headAt(q, "model.projection_head.layers.")), true, false, 0},
		{"solo-learn", "solo-learn", merged(backboneAt(q, prefixed("backbone.")), headAt(q, "projector."), backboneAt(k, prefixed("momentum_backbone.")), headAt(k, "momentum_projector."),
			map[string]array.Value{"queue": tensor(2, 8, 4), "queue_ptr": {Shape: []int{1}, Ints: []int64{0}}, "classifier.weight": tensor(10, 64)}), true, true, 3},
		{"solo-learn, old", "solo-learn", merged(backboneAt(q, prefixed("encoder.")), headAt(q, "projector."), backboneAt(k, prefixed("momentum_encoder.")), headAt(k, "momentum_projector.")), true, true, 0},
		{"solo-learn, backbone. cut out", "torchvision or timm", merged(backboneAt(q, prefixed("")), backboneAt(k, prefixed("momentum_"))), false, true, 0},
		{"MMPreTrain", "MMPreTrain", backboneAt(q, prefixed("backbone.")), false, false, 0},
		{"letters stripped", "torchvision or timm", backboneAt(q, func(name string) string { return strings.TrimLeft("backbone."+name, "backone.") }), false, false, 0},
		{"compiled, in DistributedDataParallel", "torchvision or timm", backboneAt(q, prefixed("_orig_mod.module.model.")), false, false, 0},
	} {
		var list []array.Value
		for name, v := range c.tensors {
			v.Name = name
			list = append(list, v)
		}
		slices.SortFunc(list, func(a, b array.Value) int { return strings.Compare(a.Name, b.Name) })
		for form, path := range map[string]string{
			"safetensors": saved(t, func(w *bytes.Buffer) error { return safetensors.Write(w, nil, list) }),
			"PyTorch": saved(t, func(w *bytes.Buffer) error {
				var s torch.Saver
				root := &pickle.Dict{}
				root.Set("hyper_parameters", &pickle.Object{Class: pickle.Global{Module: "argparse", Name: "Namespace"}, State: &pickle.Dict{}})
				root.Set("state_dict", s.StateDict(list))
				return s.Save(w, root)
			}),
		} {
			got, err := imported(path, ImportOptions{Arch: "resnet8"})
			if err != nil {
				t.Errorf("%s, %s: %v", c.name, form, err)
				continue
			}
			if got.Layout != c.layout || len(got.Unexpected) != c.unexpected {
				t.Errorf("%s, %s: layout %s, unexpected %v", c.name, form, got.Layout, got.Unexpected)
			}
			end := got.Net.NumParams()
			if !c.head {
				end = got.Net.Params[len(got.Net.Params)-2].Offset // of the linear head that was asked for
			}
			if !slices.Equal(got.QueryParams[:end], q.Params[:end]) || !slices.Equal(got.QueryBuffers, q.Buffers) {
				t.Errorf("%s, %s: the query encoder differs", c.name, form)
			}
			want := q
			if c.key {
				want = k
			}
			if !slices.Equal(got.KeyParams[:end], want.Params[:end]) || !slices.Equal(got.KeyBuffers, want.Buffers) {
				t.Errorf("%s, %s: the key encoder differs", c.name, form)
			}
			if slices.Contains(got.Missing, "encoder_k") == c.key || slices.Contains(got.Missing, "encoder_q.fc.weight") == c.head {
				t.Errorf("%s, %s: missing %v", c.name, form, got.Missing)
			}
		}
	}
}

// Networks are told apart by what they have; a 3×3 stem pads as its library's
// does.
func TestImportFindsTheNetwork(t *testing.T) {
	for _, arch := range []string{"resnet8", "resnet20", "resnet18-cifar"} {
		e := small(t, arch, network.HeadLinear, 0)
		got, err := imported(saved(t, func(w *bytes.Buffer) error { return Torchvision(w, e) }), ImportOptions{})
		if err != nil || got.Arch != arch {
			t.Errorf("%s is taken for %+v, %v", arch, got, err)
		}
	}
	e := small(t, "resnet18-cifar", network.HeadMLP, 0)
	var list []array.Value
	for name, v := range merged(backboneAt(e, prefixed("backbone.")), headAt(e, "projector.")) {
		v.Name = name
		list = append(list, v)
	}
	path := saved(t, func(w *bytes.Buffer) error { return safetensors.Write(w, nil, list) })
	for asked, want := range map[string]string{"": "resnet18-cifar-pad2", "resnet18-cifar": "resnet18-cifar"} {
		if got, err := imported(path, ImportOptions{Arch: asked}); err != nil || got.Arch != want {
			t.Errorf("solo-learn's stem, asked for %q: %v, %v", asked, got, err)
		}
	}
}

// A network that is not whole is refused, whatever else there is.
func TestImportRefusesWhatIsNotWhole(t *testing.T) {
	q := small(t, "resnet20", network.HeadMLP, 1)
	all := backboneAt(q, prefixed("encoder_q."))
	for name, c := range map[string]struct {
		change func(list map[string]array.Value)
		arch   string
		says   []string
	}{
		"a weight is missing":     {func(l map[string]array.Value) { delete(l, "encoder_q.layer2.1.conv1.weight") }, "", []string{"backbone", "resnet20", "missing: layer2.1.conv1.weight"}},
		"a statistic is missing":  {func(l map[string]array.Value) { delete(l, "encoder_q.bn1.running_var") }, "", []string{"missing: bn1.running_var"}},
		"a shape":                 {func(l map[string]array.Value) { l["encoder_q.bn1.bias"] = tensor(17) }, "", []string{"of another shape: bn1.bias [17], not [16]"}},
		"another network":         {func(map[string]array.Value) {}, "resnet18", []string{"does not fit resnet18"}},
		"a shallower network":     {func(map[string]array.Value) {}, "resnet8", []string{"layers that it has not: layer1.1."}},
		"half of the key encoder": {func(l map[string]array.Value) { l["encoder_k.conv1.weight"] = tensor(16, 3, 3, 3) }, "", []string{"key encoder", "missing: "}},
		"a pointer": {func(l map[string]array.Value) {
			l["encoder_q.fc.weight"], l["encoder_q.fc.bias"] = tensor(8, 64), tensor(8)
			l["queue"], l["queue_ptr"] = tensor(8, 4), array.Value{Shape: []int{1}, Ints: []int64{4}}
		}, "", []string{"queue_ptr"}},
	} {
		changed := maps.Clone(all)
		c.change(changed)
		var list []array.Value
		for name, v := range changed {
			v.Name = name
			list = append(list, v)
		}
		_, err := imported(saved(t, func(w *bytes.Buffer) error { return safetensors.Write(w, nil, list) }), ImportOptions{Arch: c.arch})
		if !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %q", name, err, s)
			}
		}
	}
}

// A folder for timm or transformers is taken as it is.
func TestImportOfAFolder(t *testing.T) {
	dir := t.TempDir()
	e := small(t, "resnet8", network.HeadLinear, 0)
	if _, err := imported(dir, ImportOptions{}); err == nil || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("an empty folder: %v", err)
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, nil, e.StateDict("", false)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := imported(dir, ImportOptions{}); err != nil || got.Arch != "resnet8" {
		t.Errorf("%v, %v", got, err)
	}
}
