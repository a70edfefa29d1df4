package checkpoint

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/model/network"
	"mochi/replica/queue"
)

// saved writes a state to a new file.
func saved(t *testing.T, s *State) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := Save(path, s); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspect(t *testing.T) {
	s := tinyState(6)
	q := queue.New(s.K, s.Dim, 2) // as a replica holds it
	if err := q.Set(s.Queue, s.QueueLabels, s.QueuePtr, s.QueueFilled); err != nil {
		t.Fatal(err)
	}
	path := saved(t, s)
	got, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Info{
		File: path, Format: "mochi-1", Step: 6, Epoch: 2, Arch: "tiny", Seed: math.MaxUint64, Samples: 192, Parameters: 11,
		Queue: QueueInfo{Length: 5, Dim: 3, Filled: 5},
		Digest: DigestsInfo{
			EncoderQ: Digest(s.QueryParams), EncoderK: Digest(s.KeyParams), Optimizer: Digest(s.Momentum),
			Buffers: Digest(s.QueryBuffers, s.KeyBuffers), Queue: q.Digest(),
		},
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"step":6`, `"epoch":2`, `"arch":"tiny"`, `"parameters":11`, `"queue":{"length":5,"dim":3,"filled":5}`, `"digest":{"encoder_q":"`, `"encoder_k":"`, `"optimizer":"`} {
		if !strings.Contains(string(text), key) {
			t.Errorf("%s is not in %s", key, text)
		}
	}
	// Each digest sees its own part and no other.
	for i, change := range []func(s *State){
		func(s *State) { s.QueryParams[10]++ },
		func(s *State) { s.KeyParams[10]++ },
		func(s *State) { s.Momentum[10]++ },
		func(s *State) { s.KeyBuffers[3]++ },
		func(s *State) { s.QueueLabels[4]++ },
	} {
		s := tinyState(6)
		change(s)
		other, err := Inspect(saved(t, s))
		if err != nil {
			t.Fatal(err)
		}
		a := []string{want.Digest.EncoderQ, want.Digest.EncoderK, want.Digest.Optimizer, want.Digest.Buffers, want.Digest.Queue}
		b := []string{other.Digest.EncoderQ, other.Digest.EncoderK, other.Digest.Optimizer, other.Digest.Buffers, other.Digest.Queue}
		for j := range a {
			if (a[j] != b[j]) != (i == j) {
				t.Errorf("change %d, digest %d: %s and %s", i, j, a[j], b[j])
			}
		}
	}
}

func TestDiff(t *testing.T) {
	a := saved(t, tinyState(6))
	same, err := Diff(a, a)
	if err != nil || same.Tensors != 16 || same.MaxAbs != 0 || same.MaxRel != 0 || same.Worst != "" || same.Mismatched != nil || same.Metadata != nil {
		t.Errorf("a file and itself: %+v, %v", same, err)
	}

	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name           string
		a, b           func(s *State)
		abs, rel       float64
		worst          string
		metadataDiffer []string
	}{
		{"relative to the tensor's largest", nil, func(s *State) { s.QueryParams[0] += 0.5 }, 0.5, 0.5 / 8, "encoder_q.conv1.weight", nil},
		{"the worst of two", nil, func(s *State) { s.QueryParams[0] += 0.5; s.QueryParams[10] -= 0.25 }, 0.5, 0.5 / 8, "encoder_q.conv1.weight", nil},
		{"zeros in a", func(s *State) { s.Momentum[10] = 0 }, func(s *State) { s.Momentum[10] = 1e-3 }, float64(float32(1e-3)), 1, "optimizer.momentum.fc.bias", nil},
		{"queue", nil, func(s *State) { s.Queue[14] = -s.Queue[14] }, 40, 2, "queue", nil},
		{"pointer", nil, func(s *State) { s.QueuePtr = 3 }, 1, 0.25, "queue_ptr", nil},
		{"labels", nil, func(s *State) { s.QueueLabels[1] = 0 }, 1, 1.0 / 7, "queue_labels", nil},
		{"a new NaN", nil, func(s *State) { s.KeyParams[3] = nan }, math.MaxFloat64, math.MaxFloat64, "encoder_k.conv1.weight", nil},
		{"a new infinity", nil, func(s *State) { s.KeyParams[3] = inf }, math.MaxFloat64, math.MaxFloat64, "encoder_k.conv1.weight", nil},
		{"NaN and infinity in both", func(s *State) { s.KeyParams[3], s.KeyParams[2] = nan, inf }, func(s *State) { s.KeyParams[3], s.KeyParams[2] = nan, inf }, 0, 0, "", nil},
		{"infinity in both hides nothing", func(s *State) { s.KeyParams[0] = inf }, func(s *State) { s.KeyParams[0] = inf; s.KeyParams[7] += 0.5 }, 0.5, 0.5 / 10.75, "encoder_k.conv1.weight", nil},
		{"metadata only", nil, func(s *State) { s.Step++; s.Config = "x" }, 0, 0, "", []string{"config", "step"}},
	} {
		x, y := tinyState(6), tinyState(6)
		if c.a != nil {
			c.a(x)
		}
		c.b(y)
		d, err := Diff(saved(t, x), saved(t, y))
		if err != nil {
			t.Fatal(err)
		}
		if d.Tensors != 16 || d.MaxAbs != c.abs || d.MaxRel != c.rel || d.Worst != c.worst || d.Mismatched != nil || !slices.Equal(d.Metadata, c.metadataDiffer) {
			t.Errorf("%s: %+v", c.name, d)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDiffListsWhatDoesNotCompare(t *testing.T) {
	s := tinyState(6)
	s.Net.Params[0].Shape = []int{8}
	s.Net.Buffers[1] = network.Tensor{Name: "bn1.other", Shape: []int{2}, Offset: 2, Size: 2}
	a, b := saved(t, tinyState(6)), saved(t, s)
	d, err := Diff(a, b)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"encoder_q.conv1.weight: F32 [2 1 2 2] and F32 [8]",
		"encoder_q.bn1.running_var: only in " + a,
		"encoder_k.conv1.weight: F32 [2 1 2 2] and F32 [8]",
		"encoder_k.bn1.running_var: only in " + a,
		"optimizer.momentum.conv1.weight: F32 [2 1 2 2] and F32 [8]",
		"encoder_q.bn1.other: only in " + b,
		"encoder_k.bn1.other: only in " + b,
	}
	if !slices.Equal(d.Mismatched, want) || d.Tensors != 11 || d.MaxRel != 0 {
		t.Errorf("%+v", d)
	}
	if err := os.WriteFile(b, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Diff(a, b); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), b) {
		t.Errorf("got %v", err)
	}
	if _, err := Inspect(b); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
