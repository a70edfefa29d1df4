package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"

	"mochi/model/network"
)

// tinyNet is a network in name only: 11 parameters in three tensors and four
// buffer elements in two.
func tinyNet() *network.Network {
	return &network.Network{
		Arch: "tiny", Dim: 3,
		Params: []network.Tensor{
			{Name: "conv1.weight", Shape: []int{2, 1, 2, 2}, Offset: 0, Size: 8},
			{Name: "bn1.weight", Shape: []int{2}, Offset: 8, Size: 2},
			{Name: "fc.bias", Shape: []int{1}, Offset: 10, Size: 1},
		},
		Buffers: []network.Tensor{
			{Name: "bn1.running_mean", Shape: []int{2}, Offset: 0, Size: 2},
			{Name: "bn1.running_var", Shape: []int{2}, Offset: 2, Size: 2},
		},
	}
}

// tinyState holds a different value in every element.
func tinyState(step int64) *State {
	next := float32(step)
	vector := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			next += 0.25
			v[i] = next
		}
		return v
	}
	const k, d = 5, 3
	return &State{
		Arch: "tiny", Step: step, Epoch: 2, Cursor: step * 32, Seed: math.MaxUint64,
		Config: "arch: tiny\nnote: \"digest\":\"0\" <&> é\n", Net: tinyNet(),
		QueryParams: vector(11), KeyParams: vector(11), Momentum: vector(11),
		QueryBuffers: vector(4), KeyBuffers: vector(4),
		K: k, Dim: d, Queue: vector(k * d), QueueLabels: []int32{3, -1, 0, 7, 2},
		QueuePtr: 4, QueueFilled: 9,
	}
}

func encode(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	want := tinyState(7)
	want.QueryParams[0] = float32(math.NaN())
	want.QueryParams[1] = float32(math.Copysign(0, -1))
	want.Momentum[2] = float32(math.Inf(-1))
	blob := encode(t, want)
	if !bytes.Equal(blob, encode(t, want)) {
		t.Error("two writes of one state differ")
	}
	for name, r := range map[string]io.Reader{
		"known size":    bytes.NewReader(blob),
		"unknown size":  io.MultiReader(bytes.NewReader(blob)),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(blob)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(blob)),
	} {
		got, err := Read(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(encode(t, got), blob) {
			t.Errorf("%s: the state read writes another file", name)
		}
		if err := got.Matches(want.Net, want.K, want.Dim); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.Step != 7 || got.Epoch != 2 || got.Cursor != 224 || got.Seed != math.MaxUint64 || got.Config != want.Config ||
			got.QueuePtr != 4 || got.QueueFilled != 9 || got.K != 5 || got.Dim != 3 || got.Arch != "tiny" {
			t.Errorf("%s: %+v", name, got)
		}
		for i, pair := range [][2][]float32{
			{got.QueryParams, want.QueryParams}, {got.KeyParams, want.KeyParams}, {got.Momentum, want.Momentum},
			{got.QueryBuffers, want.QueryBuffers}, {got.KeyBuffers, want.KeyBuffers}, {got.Queue, want.Queue},
		} {
			if Digest(pair[0]) != Digest(pair[1]) {
				t.Errorf("%s: vector %d is %v, want %v", name, i, pair[0], pair[1])
			}
		}
		if !slices.Equal(got.QueueLabels, want.QueueLabels) {
			t.Errorf("%s: labels %v", name, got.QueueLabels)
		}
	}
}

// Files of earlier builds have the version under "format". Those of other
// programs that say "pt" are not taken for ours.
func TestReadTakesOlderFiles(t *testing.T) {
	s := tinyState(3)
	blob := encode(t, s)
	const now = `"format":"pt",`
	older := rewrite(rewrite(blob, now, `"format":"mochi-1",`), `"mochi_format":"mochi-1",`, "")
	got, err := Read(bytes.NewReader(older))
	if err != nil || got.Step != s.Step || Digest(got.QueryParams) != Digest(s.QueryParams) {
		t.Errorf("an older file: %v", err)
	}
	for says, blob := range map[string][]byte{
		"without the metadata of a mochi checkpoint": rewrite(blob, `"mochi_format":"mochi-1",`, ""),
		`its format is "mochi-0"`:                    rewrite(older, `"format":"mochi-1",`, `"format":"mochi-0",`),
	} {
		if _, err := Read(bytes.NewReader(blob)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}

// A second reader, written from the format's description alone: what other
// programs will see.
func TestFileIsPlainSafetensors(t *testing.T) {
	s := tinyState(12)
	blob := encode(t, s)
	n := binary.LittleEndian.Uint64(blob)
	if n%8 != 0 || blob[8] != '{' {
		t.Fatalf("header of %d bytes starts with %q", n, blob[8])
	}
	var items map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	var meta struct {
		Strings map[string]string `json:"__metadata__"`
	}
	if err := json.Unmarshal(blob[8:8+n], &meta); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.Replace(blob[8:8+n], []byte(`"__metadata__":`), []byte(`"x":{},"ignored":`), 1), &items); err != nil {
		t.Fatal(err)
	}
	delete(items, "x")
	delete(items, "ignored")
	data := blob[8+n:]
	wantMeta := map[string]string{
		"format": "pt", "mochi_format": "mochi-1", "arch": "tiny", "step": "12", "epoch": "2", "seed": "18446744073709551615",
		"config": s.Config, "sampler": `{"cursor":384}`, "queue_filled": "9", "digest": meta.Strings["digest"],
	}
	if !reflect.DeepEqual(meta.Strings, wantMeta) {
		t.Errorf("metadata %q", meta.Strings)
	}
	want := map[string]string{
		"queue_ptr":                       "I64 [1] [4]",
		"encoder_q.conv1.weight":          "F32 [2 1 2 2] [12.25 12.5 12.75 13 13.25 13.5 13.75 14]",
		"encoder_q.bn1.weight":            "F32 [2] [14.25 14.5]",
		"encoder_q.fc.bias":               "F32 [1] [14.75]",
		"encoder_k.conv1.weight":          "F32 [2 1 2 2] [15 15.25 15.5 15.75 16 16.25 16.5 16.75]",
		"encoder_k.bn1.weight":            "F32 [2] [17 17.25]",
		"encoder_k.fc.bias":               "F32 [1] [17.5]",
		"optimizer.momentum.conv1.weight": "F32 [2 1 2 2] [17.75 18 18.25 18.5 18.75 19 19.25 19.5]",
		"optimizer.momentum.bn1.weight":   "F32 [2] [19.75 20]",
		"optimizer.momentum.fc.bias":      "F32 [1] [20.25]",
		"encoder_q.bn1.running_mean":      "F32 [2] [20.5 20.75]",
		"encoder_q.bn1.running_var":       "F32 [2] [21 21.25]",
		"encoder_k.bn1.running_mean":      "F32 [2] [21.5 21.75]",
		"encoder_k.bn1.running_var":       "F32 [2] [22 22.25]",
		// Key 0 is 22.5, 22.75, 23: the first column.
		"queue":        "F32 [3 5] [22.5 23.25 24 24.75 25.5 22.75 23.5 24.25 25 25.75 23 23.75 24.5 25.25 26]",
		"queue_labels": "I32 [5] [3 -1 0 7 2]",
	}
	end := 0
	for name, it := range items {
		part := data[it.Offsets[0]:it.Offsets[1]]
		end = max(end, it.Offsets[1])
		var values []any
		width := 4
		if it.DType == "I64" {
			width = 8
		}
		if it.Offsets[0]%width != 0 {
			t.Errorf("%s is not aligned", name)
		}
		for ; len(part) > 0; part = part[width:] {
			switch it.DType {
			case "F32":
				values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(part)))
			case "I32":
				values = append(values, int32(binary.LittleEndian.Uint32(part)))
			case "I64":
				values = append(values, int64(binary.LittleEndian.Uint64(part)))
			}
		}
		if got := fmt.Sprintf("%s %v %v", it.DType, it.Shape, values); got != want[name] {
			t.Errorf("%s: %s, want %s", name, got, want[name])
		}
	}
	if len(items) != len(want) || end != len(data) {
		t.Errorf("%d tensors, want %d; data ends at %d of %d", len(items), len(want), end, len(data))
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	blob := encode(t, &State{ // short, since every bit is tried
		Net: &network.Network{Params: []network.Tensor{{Name: "w", Shape: []int{1}, Size: 1}}}, Config: "\"",
		QueryParams: []float32{1}, KeyParams: []float32{2}, Momentum: []float32{3},
		K: 1, Dim: 1, Queue: []float32{4}, QueueLabels: []int32{5},
	})
	if _, err := Read(bytes.NewReader(blob)); err != nil {
		t.Fatal(err)
	}
	for i := range blob {
		for bit := range 8 {
			damaged := bytes.Clone(blob)
			damaged[i] ^= 1 << bit
			if _, err := Read(bytes.NewReader(damaged)); !errors.Is(err, ErrInvalid) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
	}
}

func TestEveryCutIsFound(t *testing.T) {
	blob := encode(t, tinyState(1))
	for n := range blob {
		for name, r := range map[string]io.Reader{"known": bytes.NewReader(blob[:n]), "unknown": io.MultiReader(bytes.NewReader(blob[:n]))} {
			if _, err := Read(r); !errors.Is(err, ErrInvalid) {
				t.Fatalf("cut to %d of %d bytes (size %s): %v", n, len(blob), name, err)
			}
		}
	}
	longer := append(bytes.Clone(blob), 0)
	for _, r := range []io.Reader{bytes.NewReader(longer), io.MultiReader(bytes.NewReader(longer))} {
		if _, err := Read(r); !errors.Is(err, ErrInvalid) {
			t.Fatalf("a byte too many: %v", err)
		}
	}
}

func TestReadPassesOnOtherErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	blob := encode(t, tinyState(1))
	for _, n := range []int{0, 4, 100, len(blob) - 3, len(blob)} {
		_, err := Read(io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, ErrInvalid) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// reseal gives a file made by a test the digest it needs to pass as whole.
func reseal(blob []byte) []byte {
	blob = bytes.Clone(blob)
	h := header{raw: blob}
	at := h.digestAt()
	if at < 0 {
		return blob
	}
	copy(blob[at:], noDigest)
	copy(blob[at:], hex(xxhash.Sum64(blob)))
	return blob
}

// rewrite changes a file's header text and makes it whole again.
func rewrite(blob []byte, old, new string) []byte {
	n := binary.LittleEndian.Uint64(blob)
	text := strings.Replace(string(blob[8:8+n]), old, new, 1)
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return reseal(append(append(out, text...), blob[8+n:]...))
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	blob := encode(t, tinyState(1))
	if rewritten := rewrite(blob, `"step":"1"`, `"step":"2"`); !bytes.Equal(rewritten, encode(t, func() *State {
		s := tinyState(1)
		s.Step = 2
		return s
	}())) {
		t.Fatal("rewrite does not give a valid file")
	}
	wrongPtr := tinyState(1)
	wrongPtr.QueuePtr = 0
	ptrBlob := encode(t, wrongPtr)
	ptrBlob[8+binary.LittleEndian.Uint64(ptrBlob)] = 5
	for _, c := range []struct {
		name, says string
		blob       []byte
	}{
		{"empty", "cut short", nil},
		{"text", "not a safetensors file", []byte("hello, this is no checkpoint")},
		{"JPEG", "not a safetensors file", append([]byte{0xff, 0xd8, 0xff, 0xe0}, make([]byte, 100)...)},
		{"header length of a zip", "not a safetensors file", []byte("PK\x03\x04aaaaaaaaaaaaaaaa")},
		{"not JSON", "not JSON", append([]byte{8, 0, 0, 0, 0, 0, 0, 0}, "{\"a\":1,}"...)},
		{"no metadata", "without the metadata", append([]byte{8, 0, 0, 0, 0, 0, 0, 0}, "{      }"...)},
		{"format", `"mochi-2", this version reads "mochi-1"`, rewrite(blob, `"mochi-1"`, `"mochi-2"`)},
		{"no digest", "no digest", rewrite(blob, `"digest":"`, `"digets":"`)},
		{"data", "digest mismatch", append(bytes.Clone(blob[:len(blob)-1]), 9)},
		{"step", `metadata step: "-1"`, rewrite(blob, `"step":"1"`, `"step":"-1"`)},
		{"epoch", `metadata epoch: "99999999999"`, rewrite(blob, `"epoch":"2"`, `"epoch":"99999999999"`)},
		{"seed", "metadata seed", rewrite(blob, `"seed":"1`, `"seed":"x`)},
		{"sampler", "metadata sampler", rewrite(blob, `{\"cursor\":32}`, `{\"cursor\":-2}`)},
		{"metadata type", "metadata are not strings", rewrite(blob, `"step":"1"`, `"step":1`)},
		{"dtype", `"F64" is not one of F32`, rewrite(blob, `"F32"`, `"F64"`)},
		{"other dtype", `"queue_labels" has type F32, not I32`, rewrite(blob, `"I32"`, `"F32"`)},
		{"shape", "do not fit", rewrite(blob, `[2,1,2,2]`, `[2,1,2,3]`)},
		{"huge shape", "shape", rewrite(blob, `[2,1,2,2]`, `[2147483647,2147483647,2147483647,2147483647]`)},
		{"negative shape", "shape", rewrite(blob, `[2,1,2,2]`, `[-2,-1,2,2]`)},
		{"other shape of the key", "encoder_k are not those", rewrite(blob, `"encoder_k.conv1.weight":{"dtype":"F32","shape":[2,1,2,2]`, `"encoder_k.conv1.weight":{"dtype":"F32","shape":[2,2,1,2]`)},
		{"gap", "starts at byte", rewrite(blob, `"data_offsets":[0,8]`, `"data_offsets":[8,16]`)},
		{"negative offset", "do not fit", rewrite(blob, `"data_offsets":[0,8]`, `"data_offsets":[-8,0]`)},
		{"three offsets", "malformed", rewrite(blob, `"data_offsets":[0,8]`, `"data_offsets":[0,8,9]`)},
		{"unknown tensor", `"quede" does not belong`, rewrite(blob, `"queue":`, `"quede":`)},
		{"missing tensor", `"queue_labels" is missing`, rewrite(blob, `"queue_labels":{"dtype":"I32"`, `"encoder_q.labels":{"dtype":"F32"`)},
		{"flat queue", "not [d, K]", rewrite(blob, `[3,5]`, `[15]`)},
		{"labels", "queue_labels has shape [5], the queue 3 slots", rewrite(blob, `[3,5]`, `[5,3]`)},
		{"momentum", "optimizer.momentum are not", rewrite(blob, `"optimizer.momentum.bn1.weight"`, `"optimizer.momentum.bn2.weight"`)},
		{"key buffers", "buffers of encoder_k are not", rewrite(blob, `"encoder_k.bn1.running_var"`, `"encoder_k.bn1.running_std"`)},
		{"pointer", "queue_ptr is 5, the queue has 5 slots", reseal(ptrBlob)},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.blob), io.MultiReader(bytes.NewReader(c.blob))} {
			_, err := Read(r)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: want %q, got %v", c.name, c.says, err)
			}
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	if err := os.WriteFile(path, []byte("short"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(path + "x"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(filepath.Dir(path)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a folder: %v", err)
	}
}

func TestMatches(t *testing.T) {
	s, err := Read(bytes.NewReader(encode(t, tinyState(1))))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Matches(tinyNet(), 5, 3); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		says   string
		change func(n *network.Network)
		k, d   int
	}{
		{"architecture: expected resnet20, found tiny", func(n *network.Network) { n.Arch = "resnet20" }, 5, 3},
		{"dim: expected 4, found 3", func(n *network.Network) {}, 5, 4},
		{"queue: expected 6 keys, found 5", func(n *network.Network) {}, 6, 3},
		{"conv1.weight: expected [8], found [2 1 2 2]", func(n *network.Network) { n.Params[0].Shape = []int{8} }, 5, 3},
		{"expected fc.0.bias, found fc.bias", func(n *network.Network) { n.Params[2].Name = "fc.0.bias" }, 5, 3},
		{"fc.bias: unexpected", func(n *network.Network) { n.Params = n.Params[:2] }, 5, 3},
		{"bn2.running_mean: missing", func(n *network.Network) { n.Buffers = append(n.Buffers, network.Tensor{Name: "bn2.running_mean"}) }, 5, 3},
	} {
		net := tinyNet()
		c.change(net)
		if err := s.Matches(net, c.k, c.d); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got %v", c.says, err)
		}
	}
}

// A real encoder goes in and fits what comes out, and nothing else does.
func TestRealNetwork(t *testing.T) {
	build := func(arch, head string) *network.Network {
		net, err := network.Build(arch, network.Options{Channels: 3, ImageSize: 28, Dim: 16, Head: head})
		if err != nil {
			t.Fatal(err)
		}
		return net
	}
	net := build("resnet8", network.HeadMLP)
	params, buffers := net.Init(3)
	file := encode(t, &State{
		Arch: net.Arch, Net: net, Config: strings.Repeat("a: b\n", 1000),
		QueryParams: params, KeyParams: params, Momentum: make([]float32, len(params)),
		QueryBuffers: buffers, KeyBuffers: buffers,
		K: 4, Dim: 16, Queue: make([]float32, 64), QueueLabels: make([]int32, 4),
	})
	if most := SizeAtMost(net, 4, 16, 0).File; int64(len(file)) > most || int64(len(file)) < most-2<<20 {
		t.Errorf("%d bytes, said to be %d at most", len(file), most)
	}
	s, err := Read(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Matches(net, 4, 16); err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.QueryParams, params) || !slices.Equal(s.KeyBuffers, buffers) {
		t.Error("the vectors changed")
	}
	for _, other := range []*network.Network{build("resnet20", network.HeadMLP), build("resnet8", network.HeadLinear)} {
		if err := s.Matches(other, 4, 16); !errors.Is(err, ErrMismatch) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWriteRefusesImpossibleStates(t *testing.T) {
	for _, c := range []struct {
		says   string
		change func(s *State)
	}{
		{"no network", func(s *State) { s.Net = nil }},
		{"momentum: 10 elements, want 11", func(s *State) { s.Momentum = s.Momentum[1:] }},
		{"queue: 15 elements, want 18", func(s *State) { s.K = 6 }},
		{"queue of 0 keys", func(s *State) { s.K, s.Queue, s.QueueLabels = 0, nil, nil }},
		{"queue pointer 5 of a queue of 5", func(s *State) { s.QueuePtr = 5 }},
		{"none may be negative", func(s *State) { s.Cursor = -1 }},
	} {
		s := tinyState(1)
		c.change(s)
		if err := Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got %v", c.says, err)
		}
	}
}

func TestDigest(t *testing.T) {
	// xxhash64 of the bytes 00 00 80 3f 00 00 00 c0, computed byte by byte.
	want := hex(xxhash.Sum64([]byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}))
	if got := Digest([]float32{1, -2}); got != want || len(got) != 16 {
		t.Errorf("got %s, want %s", got, want)
	}
	if Digest([]float32{1}, nil, []float32{-2}) != want {
		t.Error("the digest depends on how the elements are divided")
	}
	if Digest([]float32{0}) == Digest([]float32{float32(math.Copysign(0, -1))}) {
		t.Error("0 and −0 have one digest")
	}
	if Digest() != "ef46db3751d8e999" { // XXH64 of nothing with seed 0, from its specification
		t.Errorf("empty: %s", Digest())
	}
	if got := Digests([]float32{1}, nil, []float32{1, -2}); !slices.Equal(got, []string{Digest([]float32{1}), Digest(), want}) {
		t.Errorf("each of three: %v", got)
	}
	if DigestString("") != Digest() || DigestString("a") == DigestString("b") {
		t.Error("DigestString")
	}
}

// Header and data vary apart, and length and digest are made to fit: else
// nothing would get past them.
func FuzzRead(f *testing.F) {
	blob := encode(f, tinyState(1))
	start := 8 + binary.LittleEndian.Uint64(blob)
	text, data := string(blob[8:start]), blob[start:]
	f.Add(text, data)
	probed := encode(f, probedState())
	begins := 8 + binary.LittleEndian.Uint64(probed)
	f.Add(string(probed[8:begins]), probed[begins:])
	f.Add(strings.Replace(text, `[2,1,2,2]`, `[2,2,2]`, 1), data)
	f.Add(strings.Replace(text, `[3,5]`, `[5,3]`, 1), data)
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		if len(text) < 2 {
			return
		}
		blob := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
		blob = reseal(append(append(blob, text...), data...))
		s, err := Read(bytes.NewReader(blob))
		streamed, err2 := Read(io.MultiReader(bytes.NewReader(blob)))
		if (err == nil) != (err2 == nil) {
			t.Fatalf("known size: %v; unknown: %v", err, err2)
		}
		if err != nil {
			return
		}
		// Whatever was accepted can be written, and reads back the same.
		again := encode(t, s)
		back, err := Read(bytes.NewReader(again))
		if err != nil || !bytes.Equal(encode(t, back), again) || !bytes.Equal(encode(t, streamed), again) {
			t.Fatalf("accepted %q, wrote %q (%v)", blob, again, err)
		}
	})
}

// ResNet-50 with an MLP head and ImageNet-1K's queue: 28 M parameters.
func BenchmarkWrite(b *testing.B) {
	s := tinyState(1)
	const n = 28 << 20
	s.Net.Params = []network.Tensor{{Name: "w", Shape: []int{n}, Size: n}}
	s.QueryParams, s.KeyParams, s.Momentum = make([]float32, n), make([]float32, n), make([]float32, n)
	s.K, s.Dim = 65536, 128
	s.Queue, s.QueueLabels = make([]float32, s.K*s.Dim), make([]int32, s.K)
	b.SetBytes(4 * (3*n + 65536*129))
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(io.Discard, s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	v := make([]float32, 28<<20)
	b.SetBytes(int64(len(v) * 4))
	for b.Loop() {
		Digest(v)
	}
}

func Example() {
	net := &network.Network{Arch: "one", Dim: 1, Params: []network.Tensor{{Name: "fc.weight", Shape: []int{1, 1}, Size: 1}}}
	saved := &State{
		Arch: "one", Step: 20, Net: net,
		QueryParams: []float32{0.5}, KeyParams: []float32{0.4}, Momentum: []float32{0.1},
		K: 2, Dim: 1, Queue: []float32{1, -1}, QueueLabels: []int32{-1, -1},
	}
	var file bytes.Buffer
	if err := Write(&file, saved); err != nil {
		fmt.Println(err)
	}
	s, err := Read(&file)
	fmt.Println(s.Step, s.Net.Params[0].Name, s.QueryParams, s.Queue, err)
	// Output: 20 fc.weight [0.5] [1 -1] <nil>
}

// Of a known network a header may be no longer than it needs.
func TestHeaderHasALimit(t *testing.T) {
	s := tinyState(1)
	blob := encode(t, s)
	most := SizeAtMost(s.Net, s.K, s.Dim, 0)
	if _, err := read(bytes.NewReader(blob), int64(len(blob)), most); err != nil {
		t.Error(err)
	}
	header := int64(binary.LittleEndian.Uint64(blob))
	if _, err := read(bytes.NewReader(blob), int64(len(blob)), Bounds{Header: header - 1}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("a header of %d bytes: %v", header, err)
	}
}
