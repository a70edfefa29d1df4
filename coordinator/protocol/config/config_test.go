package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"mochi/model/network"
)

// METHOD: the published settings, number by number.
func TestPresetsArePublishedSettings(t *testing.T) {
	type row struct {
		arch, head              string
		size, batch, group      int
		k, dim                  int
		tau, m, lr, sgd, wd     float64
		mochi                   string
		epochs, warmup          int
		schedule, opt, recipe   string
		shards, min, max, steps int
	}
	want := map[string]row{
		"imagenet100": {"resnet50", "mlp", 224, 128, 32, 16384, 128, 0.2, 0.999, 0.03, 0.9, 1e-4, "1024,1024,128", 200, 10, "cosine", "sgd", "moco-v2", 16, 1, 0, 0},
		"imagenet1k":  {"resnet50", "mlp", 224, 256, 32, 65536, 128, 0.2, 0.999, 0.03, 0.9, 1e-4, "1024,512,256", 200, 15, "cosine", "sgd", "moco-v2", 16, 1, 0, 0},
		"cifar10":     {"resnet18-cifar", "linear", 32, 512, 64, 4096, 128, 0.1, 0.99, 0.06, 0.9, 5e-4, "256,256,32", 200, 10, "cosine", "sgd", "cifar", 16, 1, 0, 0},
	}
	for name, w := range want {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		got := row{c.Arch, c.Head, c.ImageSize, c.Batch, c.BNGroup, c.Queue, c.Dim, c.Temperature, c.Momentum, c.LR, c.SGDMomentum, c.WeightDecay, c.MoCHi.String(), c.Epochs, c.MoCHiWarmup, c.Schedule, c.Optimizer, c.Recipe, c.QueueShards, c.MinReplicas, c.MaxReplicas, int(c.Steps)}
		if got != w {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, w)
		}
	}
}

func TestPresetsAreValidAndSurviveYAML(t *testing.T) {
	for _, name := range Presets() {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.Preset != name {
			t.Errorf("%s: preset field is %q", name, c.Preset)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if w := c.Warnings(); w != nil {
			t.Errorf("%s: %q", name, w)
		}
		// Every field away from its preset, so that none is lost on the way.
		c.Seed, c.Steps, c.Oracle, c.SampleLog, c.MaxReplicas = math.MaxUint64, 77, true, true, 4
		c.LR, c.Temperature, c.Pairs = 1.0/3, 0.07, "shard"
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if back != c {
			t.Errorf("%s: read back\n%+v\nwant\n%+v", name, back, c)
		}
		var wire Job // as in a Welcome
		if blob, err := json.Marshal(c); err != nil || json.Unmarshal(blob, &wire) != nil || wire != c {
			t.Errorf("%s: JSON gives %+v (%v)", name, wire, err)
		}
	}
	if _, err := Preset("imagenet"); err == nil || !strings.Contains(err.Error(), "imagenet100, imagenet1k, cifar10, demo") {
		t.Errorf("unknown preset: %v", err)
	}
}

func TestYAMLNamesEveryField(t *testing.T) {
	text, err := Job{Preset: "demo"}.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var c Job
	for _, f := range fieldsOf(&c) {
		if f.name == "" || strings.Contains(f.name, "_") || !strings.Contains("\n"+string(text), "\n"+f.name+": ") {
			t.Errorf("field %q is not in the YAML:\n%s", f.name, text)
		}
	}
	if n := reflect.TypeOf(c).NumField(); n != strings.Count(string(text), "\n") {
		t.Errorf("%d fields in %d lines", n, strings.Count(string(text), "\n"))
	}
}

func TestParseFillsFromPreset(t *testing.T) {
	c, err := Parse([]byte("preset: cifar10\nbatch: 256 # smaller\nmochi: [128, 64, 16]\nlr: 3e-2\n"))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := Preset("cifar10")
	want.Batch, want.MoCHi, want.LR = 256, MoCHi{128, 64, 16}, 0.03
	if c != want {
		t.Errorf("got %+v", c)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "null\n"} {
		if c, err := Parse([]byte(empty)); err != nil || c != Default() {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
	base, _ := Preset("demo")
	c, err = Overlay(base, []byte("preset: cifar10\nbatch: 64\n"))
	if err != nil || c.Arch != base.Arch || c.Batch != 64 || c.Preset != "cifar10" {
		t.Errorf("overlay: %+v, %v", c, err)
	}
}

func TestParseListsAllFaults(t *testing.T) {
	c, err := Parse([]byte(`
bacth: 3
queue_shards: 8
zzzzzzzzzzzzzz: 1
batch: many
mochi: 1,2
temperature: {a: 1}
seed: -1
oracle: perhaps
dim:
epochs: 7
epochs: 8
`))
	var fs Faults
	if !errors.As(err, &fs) {
		t.Fatalf("got %v", err)
	}
	want := []string{
		"bacth: line 2: no such key; did you mean batch?",
		"queue_shards: line 3: no such key; did you mean queue-shards?",
		"zzzzzzzzzzzzzz: line 4: no such key",
		`batch: line 5: "many" is not a whole number`,
		`mochi: line 6: "1,2" is not of the form N,s,s2 (three integers, such as 256,256,32; 0,0,0 is MoCo-v2)`,
		"temperature: line 7: must be a number",
		`seed: line 8: "-1" is not a whole number, 0 or more`,
		`oracle: line 9: "perhaps" is not true or false`,
		"dim: line 10: has no value",
		"epochs: line 12: given twice",
	}
	for i, f := range fs {
		if i >= len(want) || f.String() != want[i] {
			t.Errorf("fault %d: %q", i, f)
		}
	}
	if len(fs) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(fs), len(want), err)
	}
	if c.Epochs != 7 || c.Batch != Default().Batch {
		t.Errorf("what could be read is lost: %+v", c)
	}
	for _, text := range []string{"- a\n- b\n", "just words", "a: [", "\x00"} {
		if _, err := Parse([]byte(text)); !errors.As(err, &fs) || fs[0].Field != "config" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTakeKeys(t *testing.T) {
	taken, rest, err := TakeKeys([]byte("engine: gorgonia\nbatch: 64\nthreads: 2\ndata: [a, b c]\nmochi: 0,0,0\n"), "engine", "threads", "device", "data")
	if err != nil || !reflect.DeepEqual(taken, map[string][]string{"engine": {"gorgonia"}, "threads": {"2"}, "data": {"a", "b c"}}) {
		t.Fatalf("%v, %v", taken, err)
	}
	c, err := Parse(rest)
	if err != nil || c.Batch != 64 || c.MoCHi != (MoCHi{}) {
		t.Errorf("rest %q: %+v, %v", rest, c, err)
	}
	if _, rest, err := TakeKeys([]byte("engine: a\n"), "engine"); err != nil || len(rest) != 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
	if _, _, err := TakeKeys([]byte("engine: a\nengine: b\nthreads: []\ndata: [[a]]\n"), "engine", "threads", "data"); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v", err)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Job)
		says   string
	}{
		{"preset", func(c *Job) { c.Preset = "cifar11" }, "did you mean cifar10?"},
		{"arch", func(c *Job) { c.Arch = "resnet-50" }, "did you mean resnet50?"},
		{"head", func(c *Job) { c.Head = "" }, "linear, mlp"},
		{"recipe", func(c *Job) { c.Recipe = "simclr" }, "moco-v2, cifar, none"},
		{"schedule", func(c *Job) { c.Schedule = "cos" }, "cosine"},
		{"optimizer", func(c *Job) { c.Optimizer = "adam" }, "sgd"},
		{"lr-warmup", func(c *Job) { c.LRWarmup = -1 }, "too small"},
		{"lr-warmup", func(c *Job) { c.LRWarmup = c.Epochs }, "never"},
		{"precision", func(c *Job) { c.Precision = "fp16" }, "did you mean fp32?"},
		{"wire", func(c *Job) { c.Wire = "int8" }, "fp32, bf16"},
		{"queue-copies", func(c *Job) { c.QueueCopies = "1" }, "at least 2"},
		{"pairs", func(c *Job) { c.QueueCopies, c.Pairs = "2", "all" }, "queue-copies 2 spreads the queue over replicas; use pairs shard"},
		{"pairs", func(c *Job) { c.Pairs = "shards" }, "did you mean shard?"},
		{"queue-storage", func(c *Job) { c.QueueStorage = "fp16" }, "auto, fp32, bf16"},
		{"queue-copies", func(c *Job) { c.QueueCopies = "some" }, "nor a number"},
		{"queue-copies", func(c *Job) { c.QueueCopies = "-2" }, "nor a number"},
		{"image-size", func(c *Job) { c.ImageSize = 31 }, "31 is too small for resnet50; at least 32"},
		{"image-size", func(c *Job) { c.ImageSize = 0 }, "at least 1"},
		{"image-size", func(c *Job) { c.Arch, c.ImageSize = "resnet18-cifar", 7 }, "at least 8"},
		{"bn-group", func(c *Job) { c.BNGroup = 1 }, "at least 2 samples"},
		{"bn-group", func(c *Job) { c.BNGroup = 0 }, "at least 2 samples"},
		{"batch", func(c *Job) { c.Batch = 100 }, "use 96 or 128"},
		{"batch", func(c *Job) { c.Batch = 3 }, "use 32"},
		{"batch", func(c *Job) { c.Batch = -128 }, "at least 1"},
		{"batch", func(c *Job) { c.Batch, c.Queue = 4096, 2048 }, "do not fit a queue of 2048"},
		{"queue", func(c *Job) { c.Queue, c.MoCHi = 0, MoCHi{} }, "at least 1"},
		{"queue", func(c *Job) { c.Queue = math.MaxInt }, "too large"},
		{"queue-shards", func(c *Job) { c.QueueShards = 0 }, "at least 1"},
		{"queue-shards", func(c *Job) { c.Queue, c.QueueShards, c.Pairs = 2048, 2049, "shard" }, "at most one shard a slot"},
		{"queue-shards", func(c *Job) { c.Queue, c.QueueShards, c.Pairs = 131072, 65537, "shard" }, "at most 65536"},
		{"queue-copies", func(c *Job) { c.QueueShards, c.QueueCopies = 4096, "17" }, "17 of each of 4096 shards (--queue-shards) are too many for a round to name; at most 16"},
		{"batch", func(c *Job) { c.Queue, c.Batch, c.BNGroup = 32768, 16386, 2 }, "16386 / bn-group 2 are 8193 groups, of which each reports its figures at every step; at most 8192"},
		{"dim", func(c *Job) { c.Dim = 0 }, "at least 1"},
		{"temperature", func(c *Job) { c.Temperature = 0 }, "above 0"},
		{"temperature", func(c *Job) { c.Temperature = math.NaN() }, "above 0"},
		{"temperature", func(c *Job) { c.Temperature = math.Inf(1) }, "above 0"},
		{"momentum", func(c *Job) { c.Momentum = 1 }, "below 1"},
		{"momentum", func(c *Job) { c.Momentum = -0.1 }, "at least 0"},
		{"mochi", func(c *Job) { c.MoCHi = MoCHi{16385, 1, 1} }, "N must not exceed queue"},
		{"mochi", func(c *Job) { c.MoCHi = MoCHi{0, 0, 8} }, "N = 0"},
		{"mochi", func(c *Job) { c.MoCHi = MoCHi{0, 8, 0} }, "N = 0"},
		{"mochi", func(c *Job) { c.MoCHi = MoCHi{8, -1, 0} }, "s = -1"},
		{"mochi-warmup", func(c *Job) { c.MoCHiWarmup = -1 }, "at least 0"},
		{"epochs", func(c *Job) { c.Epochs = 0 }, "at least 1"},
		{"steps", func(c *Job) { c.Steps = -1 }, "at least 0"},
		{"lr", func(c *Job) { c.LR = 0 }, "above 0"},
		{"sgd-momentum", func(c *Job) { c.SGDMomentum = 1 }, "below 1"},
		{"weight-decay", func(c *Job) { c.WeightDecay = -1e-4 }, "at least 0"},
		{"knn-every", func(c *Job) { c.KNNEvery = -1 }, "at least 0"},
		{"checkpoint-every", func(c *Job) { c.CheckpointEvery = -1 }, "at least 0"},
		{"keep", func(c *Job) { c.Keep = -1 }, "at least 0"},
		{"min-replicas", func(c *Job) { c.MinReplicas = 0 }, "at least 1"},
		{"audit", func(c *Job) { c.Audit = -0.1 }, "at least 0"},
		{"audit", func(c *Job) { c.Audit = 1.5 }, "at most 1"},
		{"audit", func(c *Job) { c.Audit = math.NaN() }, "at least 0"},
		{"min-replicas", func(c *Job) { c.MinReplicas, c.MaxReplicas = 3, 2 }, "more than max-replicas 2"},
		{"min-replicas", func(c *Job) { c.MinReplicas = 5 }, "the 4 groups of a batch"},
		{"min-replicas", func(c *Job) { c.MinReplicas, c.GroupsAtOnce = 3, 2 }, "3 is more than the units of work of a batch, 2 (batch 128 / bn-group 32 / groups-at-once 2)"},
		{"groups-at-once", func(c *Job) { c.GroupsAtOnce = 0 }, "at least 1"},
		{"groups-at-once", func(c *Job) { c.GroupsAtOnce = -2 }, "at least 1"},
		{"groups-at-once", func(c *Job) { c.GroupsAtOnce = 3 }, "the 4 groups of a batch (batch 128 / bn-group 32) are no multiple of 3; use 2 or 4"},
		{"groups-at-once", func(c *Job) { c.GroupsAtOnce = 8 }, "no multiple of 8; use 4"},
		{"max-replicas", func(c *Job) { c.MaxReplicas = -1 }, "at least 0"},
	} {
		cfg := Default()
		c.change(&cfg)
		var fs Faults
		if err := cfg.Validate(); !errors.As(err, &fs) {
			t.Errorf("%s: not refused: %v", c.field, err)
			continue
		}
		if len(fs) != 1 || fs[0].Field != c.field || !strings.Contains(fs[0].Problem, c.says) {
			t.Errorf("want one fault of %s saying %q, got %v", c.field, c.says, fs)
		}
	}
}

// How many groups are computed at once must divide their number, and what a
// refusal proposes does, with nothing nearer on either side.
func TestGroupsAtOnceDivideTheBatch(t *testing.T) {
	for groups := 1; groups <= 24; groups++ {
		valid := func(n int) error {
			c := Default()
			c.Batch, c.BNGroup, c.GroupsAtOnce = 4*groups, 4, n
			if err := c.Validate(); err != nil {
				return err
			}
			if c.Units()*n != groups {
				t.Errorf("%d units of %d are not %d groups", c.Units(), n, groups)
			}
			return nil
		}
		for n := 1; n <= 30; n++ {
			err := valid(n)
			if divides := groups%n == 0; divides != (err == nil) {
				t.Errorf("%d groups, %d at once: %v", groups, n, err)
			}
			if err == nil {
				continue
			}
			_, hint, _ := strings.Cut(err.Error(), "; use ")
			var want []string
			for _, step := range []int{-1, 1} {
				at := n
				for at > 0 && at <= max(n, groups) && valid(at) != nil {
					at += step
				}
				if at > 0 && at <= groups {
					want = append(want, fmt.Sprint(at))
				}
			}
			if hint != strings.Join(want, " or ") {
				t.Errorf("%d groups, %d at once: use %q, want %q", groups, n, hint, want)
			}
		}
	}
}

func TestValidateReportsAllAtOnce(t *testing.T) {
	var fs Faults
	if err := (Job{}).Validate(); !errors.As(err, &fs) {
		t.Fatal("the zero Job is valid")
	}
	fields := map[string]bool{}
	for _, f := range fs {
		fields[f.Field] = true
	}
	for _, name := range []string{"arch", "head", "recipe", "schedule", "optimizer", "precision", "wire", "queue-copies", "image-size", "batch", "bn-group", "groups-at-once", "queue", "queue-shards", "dim", "temperature", "epochs", "lr", "min-replicas"} {
		if !fields[name] {
			t.Errorf("%s is not among the faults:\n%v", name, fs)
		}
	}
}

func TestWarnings(t *testing.T) {
	c := Default()
	c.Epochs = 10
	if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], "covers all 10 epochs") {
		t.Errorf("%q", w)
	}
	c.MoCHi = MoCHi{N: 8}
	if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], "this is MoCo-v2") {
		t.Errorf("%q", w)
	}
}

func TestQueueStorage(t *testing.T) {
	for _, c := range []struct {
		storage string
		k, dim  int
		want    string
	}{
		{"auto", 65536, 128, "fp32"}, {"auto", 1 << 18, 128, "fp32"}, {"auto", 1<<18 + 1, 128, "bf16"}, {"auto", 1 << 18, 256, "bf16"},
		{"auto", 1 << 30, 1 << 16, "bf16"}, {"fp32", 1 << 20, 128, "fp32"}, {"bf16", 16, 16, "bf16"},
	} {
		cfg := Default()
		cfg.QueueStorage, cfg.Queue, cfg.Dim = c.storage, c.k, c.dim
		if got := cfg.Storage(); got != c.want {
			t.Errorf("%s, K = %d, d = %d: %s, want %s", c.storage, c.k, c.dim, got, c.want)
		}
		told := strings.Contains(strings.Join(cfg.Warnings(), "\n"), "kept as bf16")
		if told != (c.storage == "auto" && c.want == "bf16") {
			t.Errorf("%s, K = %d: told %v", c.storage, c.k, told)
		}
	}
}

// Changing any one field shows in Differences exactly when it shows in Digest,
// and every structural field is one of the mathematics.
func TestDigestAgreesWithDifferences(t *testing.T) {
	base := Default()
	var c Job
	for i, f := range fieldsOf(&c) {
		changed := base
		switch v := fieldsOf(&changed)[i].value; v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Uint64:
			v.SetUint(v.Uint() + 1)
		case reflect.Float64:
			v.SetFloat(math.Nextafter(v.Float(), 2))
		default:
			changed.MoCHi.S2++
		}
		list := Differences(base, changed)
		if (base.Digest() != changed.Digest()) != (len(list) == 1) {
			t.Errorf("%s: digests %s and %s, differences %q", f.name, base.Digest(), changed.Digest(), list)
		}
		for _, line := range append(list, CompatibleResume(base, changed)...) {
			if !strings.HasPrefix(line, f.name+": ") {
				t.Errorf("%s changed, reported as %q", f.name, line)
			}
		}
		if len(CompatibleResume(base, changed)) > len(list) {
			t.Errorf("%s may not change on resume but is not mathematics", f.name)
		}
	}
	other := base
	other.Arch, other.Dim, other.LR, other.Keep = "resnet18", 64, 0.1, 9
	if got := fmt.Sprint(Differences(base, other)); got != "[arch: resnet50 ≠ resnet18 dim: 128 ≠ 64 lr: 0.03 ≠ 0.1]" {
		t.Error(got)
	}
	// auto is not another storage than the one that it stands for.
	stored := base
	stored.QueueStorage = "fp32"
	if got := Differences(base, stored); len(got) > 0 || base.Digest() != stored.Digest() {
		t.Errorf("auto and fp32: %q", got)
	}
	stored.QueueStorage = "bf16"
	if got := fmt.Sprint(Differences(base, stored), CompatibleResume(base, stored)); got != "[queue-storage: fp32 ≠ bf16] []" {
		t.Error(got)
	}
	longer := base
	longer.Queue, longer.QueueShards, longer.Batch, longer.BNGroup = 1<<20, 32, 64, 16
	if got := CompatibleResume(base, longer); len(got) > 0 {
		t.Errorf("may not change on resume: %q", got)
	}
	together := base
	if together.GroupsAtOnce = 4; len(CompatibleResume(base, together)) > 0 || base.Digest() == together.Digest() ||
		fmt.Sprint(Differences(base, together)) != "[groups-at-once: 1 ≠ 4]" {
		t.Errorf("groups at once: they may change on resume, and then change the bits: %q", Differences(base, together))
	}
	if got := fmt.Sprint(CompatibleResume(base, other)); got != "[arch: resnet50 ≠ resnet18 dim: 128 ≠ 64]" {
		t.Error(got)
	}
}

// What a configuration accepts is what the networks can be built for.
func TestArchitecturesAgree(t *testing.T) {
	for _, arch := range network.Architectures() {
		cfg := Default()
		cfg.Arch = arch
		for size := 1; size <= 64; size++ {
			cfg.ImageSize = size
			_, err := network.Build(arch, network.Options{Channels: 3, ImageSize: size, Dim: cfg.Dim, Head: cfg.Head})
			if invalid := cfg.Validate(); (err == nil) != (invalid == nil) {
				t.Errorf("%s at %d pixels: network says %v, configuration says %v", arch, size, err, invalid)
			}
		}
	}
	cfg := Default()
	cfg.Arch = "none"
	text := cfg.Validate().Error()
	if known := strings.Join(network.Architectures(), ", "); !strings.Contains(text, known) {
		t.Errorf("the configuration knows other networks than %s: %s", known, text)
	}
}

// Digests are compared between replicas and kept in checkpoints: those of
// settings that exist must stay.
func TestDigestsStay(t *testing.T) {
	for name, want := range map[string][2]string{ // as it is, and changed
		"imagenet100": {"7cbfa6d5b88ab519", "f07fac9bd4a436ec"},
		"imagenet1k":  {"b95e4abe8f1efa67", "cb22644c33575ecb"},
		"cifar10":     {"064c0e62fd2d426a", "d4b4320b9366d2ba"},
		"demo":        {"20c6bf5c55e1c46f", "00caff8a4a39c2d5"},
	} {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		before := c.Digest()
		c.GroupsAtOnce, c.QueueCopies, c.QueueStorage, c.Oracle, c.LRWarmup = 2, "2", "bf16", true, 3
		c.Optimizer, c.Seed, c.Precision, c.Wire = "lars", 1<<63, "bf16", "bf16"
		if got := [2]string{before, c.Digest()}; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// With pairs inside a shard a preset is what it was before there was --pairs.
	c, err := Preset("imagenet100")
	if err != nil {
		t.Fatal(err)
	}
	if c.Pairs = "shard"; c.Digest() != "c9f41a41b6d3a41b" {
		t.Errorf("pairs inside a shard: %q", c.Digest())
	}
}

// Pairs are of all N hardest unless the queue is spread; what a run recorded
// before there was the setting had them inside a shard. Where they are of all,
// --queue-shards changes nothing.
func TestPairs(t *testing.T) {
	read := func(parse func([]byte) (Job, error), text string) Job {
		t.Helper()
		c, err := parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return c
	}
	for _, c := range []struct {
		parse  func([]byte) (Job, error)
		text   string
		pairs  string
		shards int
	}{
		{Parse, "queue-shards: 5", "all", 16},
		{Parse, "queue: 200\nbatch: 64\nqueue-shards: 5\nmochi: 0,0,0", "all", 16},
		{Parse, "queue: 7\nbatch: 4\nbn-group: 2\nqueue-shards: 5\nmochi: 0,0,0", "all", 7},
		{Parse, "queue-shards: 5\npairs: shard", "shard", 5},
		{Parse, "queue-shards: 5\nqueue-copies: 2", "shard", 5},
		{Recorded, "queue-shards: 5", "shard", 5},
		{Recorded, "queue-shards: 5\nqueue-copies: 3", "shard", 5},
		{Recorded, "queue-shards: 5\npairs: all", "all", 16},
	} {
		job := read(c.parse, c.text)
		if job.Drawn() != c.pairs || job.PairsInShard() != (c.pairs == "shard") || job.Shards() != c.shards {
			t.Errorf("%q: pairs of %s, %d shards, want %s and %d", c.text, job.Drawn(), job.Shards(), c.pairs, c.shards)
		}
		text, err := job.YAML()
		if err != nil || !strings.Contains(string(text), "\npairs: "+c.pairs+"\n") {
			t.Errorf("%q: written as %s: %v", c.text, text, err)
		}
		other := job
		other.QueueShards = 3
		same := len(Differences(job, other)) == 0 && job.Digest() == other.Digest()
		if same != (c.pairs == "all") {
			t.Errorf("%q: another number of shards: %q", c.text, Differences(job, other))
		}
	}
	if d := Differences(read(Recorded, ""), read(Parse, "")); !slices.Equal(d, []string{"pairs: shard ≠ all"}) {
		t.Errorf("an old run and a new one differ in %q", d)
	}
}

// Every setting is one flag with a help, and its tags are well formed.
func TestSettings(t *testing.T) {
	text, err := Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	var keys, names []string
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, ":")
		keys = append(keys, key)
	}
	for _, s := range Settings() {
		names = append(names, s.Name)
		if s.Group == "" || s.Help == "" || strings.ContainsAny(s.Help, "{}`") {
			t.Errorf("%+v", s)
		}
		c := Default()
		unset := Default()
		unset.Pairs = unset.Drawn()
		err := c.Set(s.Name, s.Default)
		if c.Pairs = c.Drawn(); err != nil || c != unset {
			t.Errorf("%s: its default %q cannot be set: %v", s.Name, s.Default, err)
		}
		for _, word := range s.Values {
			if !strings.Contains(s.Help, word) {
				t.Errorf("the help of %s does not name %s: %s", s.Name, word, s.Help)
			}
		}
	}
	if !slices.Equal(keys, names) {
		t.Errorf("config.yaml has %q\nsettings are %q", keys, names)
	}
	var c Job
	for _, f := range fieldsOf(&c) {
		if f.keeps != "" && f.keeps != keepsResult && f.keeps != keepsTensors {
			t.Errorf("%s keeps %q", f.name, f.keeps)
		}
		if f.value.Kind() == reflect.Bool != (f.arg == "") && f.name != "preset" {
			t.Errorf("%s: argument %q of a %v", f.name, f.arg, f.value.Kind())
		}
		f.check(new(Faults)) // panics where the words of a range are none
	}
	if want := fmt.Sprintf("fp32 up to %d MiB", ExactQueueBytes>>20); !strings.Contains(fmt.Sprint(Settings()), want) {
		t.Errorf("no help says %q", want)
	}
}

func TestSet(t *testing.T) {
	c := Default()
	if err := c.Set("mochi", "8,4,2"); err != nil || c.MoCHi != (MoCHi{8, 4, 2}) {
		t.Errorf("%+v, %v", c.MoCHi, err)
	}
	for name, want := range map[string]string{
		"batch": `batch: "x" is not a whole number`, "lr": `lr: "x" is not a number`, "oracle": `oracle: "x" is not true or false`,
		"mochi": `mochi: "x" is not of the form N,s,s2`, "bacth": "bacth: no such setting",
	} {
		if err := c.Set(name, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// What is no value must not leave a setting as it is.
	for _, s := range Settings() {
		for _, none := range []string{"", "null", "~"} {
			if err := c.Set(s.Name, none); err == nil || !strings.Contains(err.Error(), s.Name+": has no value") {
				t.Errorf("%s %q: %v", s.Name, none, err)
			}
		}
	}
}

func TestParseMoCHi(t *testing.T) {
	if m, err := ParseMoCHi(" 1024, 512,256"); err != nil || m != (MoCHi{1024, 512, 256}) {
		t.Errorf("%v, %v", m, err)
	}
	for _, bad := range []string{"", "1,2", "1,2,3,4", "1,2,x", "1;2;3", "1.5,2,3"} {
		if m, err := ParseMoCHi(bad); err == nil {
			t.Errorf("%q read as %v", bad, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	demo, _ := Preset("demo")
	text, _ := demo.YAML()
	f.Add(string(text))
	f.Add("mochi: [1, [2], 3]\nbatch: &a 3\ndim: *a\n<<: {a: 1}")
	f.Add("? [a]\n: b\n!!binary x: y")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse([]byte(text))
		if err != nil {
			return
		}
		again, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(again)
		if err != nil && c.Preset == "" {
			t.Fatalf("%q: %v", again, err)
		}
		// Some settings have a word for the empty one.
		if once, err := back.YAML(); c.Preset == "" && (err != nil || string(once) != string(again)) {
			t.Fatalf("%q became %q, %v", again, once, err)
		}
	})
}

func ExampleJob_Validate() {
	c, err := Preset("demo")
	if err != nil {
		fmt.Println(err)
	}
	c.Batch, c.MoCHi = 100, MoCHi{N: 0, S: 0, S2: 32}
	fmt.Println(c.Validate())
	// Output:
	// configuration: 2 faults
	//   batch: 100 is not a multiple of bn-group 32; use 96 or 128
	//   mochi: 0,0,32 asks for synthetic negatives (s, s2) without hard ones to mix (N = 0)
}
