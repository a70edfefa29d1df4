package torch

import (
	"archive/zip"
	"bytes"
	"io"
	"slices"
	"testing"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

func example(t *testing.T) []byte {
	t.Helper()
	var s Saver
	root := &pickle.Dict{}
	root.Set("epoch", 3)
	root.Set("far", int64(1)<<40)
	root.Set("lr", 0.5)
	root.Set("none", nil)
	root.Set("state_dict", s.StateDict([]array.Value{
		{Name: "w", Shape: []int{2, 3}, Floats: []float32{1, 2, 3, 4, 5, 6}},
		{Name: "n", Ints: []int64{-7}},
		{Name: "deep", Shape: []int{1, 1, 1, 1}, Floats: []float32{8}},
	}))
	var b bytes.Buffer
	if err := s.Save(&b, root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The layout is that of pytorch/caffe2/serialize/inline_container.cc: stored
// entries in one folder, their data aligned to 64 bytes, in this order.
func TestLayout(t *testing.T) {
	blob := example(t)
	z, err := zip.NewReader(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		if at, err := f.DataOffset(); err != nil || at%64 != 0 || f.Method != zip.Store || f.Flags&8 != 0 {
			t.Errorf("%s: offset %d, method %d, flags %x, %v", f.Name, at, f.Method, f.Flags, err)
		}
		if r, err := f.Open(); err != nil {
			t.Error(err)
		} else if _, err := io.Copy(io.Discard, r); err != nil { // the checksum too
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	want := []string{"archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/data/1", "archive/data/2", "archive/version"}
	if !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

func TestEqualInputGivesEqualBytes(t *testing.T) {
	if !bytes.Equal(example(t), example(t)) {
		t.Error("two files of one value differ")
	}
}

func TestReadsWhatItWrites(t *testing.T) {
	blob := example(t)
	root, err := Open(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "root", root, map[string]any{
		"epoch": 3., "far": float64(int64(1) << 40), "lr": 0.5,
		"state_dict": map[string]any{
			"w":    map[string]any{"shape": []any{2., 3.}, "values": []any{1., 2., 3., 4., 5., 6.}},
			"n":    map[string]any{"shape": []any{}, "values": []any{-7.}},
			"deep": map[string]any{"shape": []any{1., 1., 1., 1.}, "values": []any{8.}},
		},
	})
}

// torch.load(weights_only=True), of whatever version since 1.13, knows only some
// opcodes, and floats only since 2.0.
func TestOpcodesAreThoseOfWeightsOnly(t *testing.T) {
	blob := example(t)
	z, err := zip.NewReader(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := z.Open("archive/data.pkl")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	opcodes, err := pickle.Opcodes(text)
	if err != nil {
		t.Fatal(err)
	}
	const known = "\x80.cRb\x81(aesu}])" + "\x8f" + "t\x85\x86\x87N\x88\x89JKM\x8aGXUQhjqr"
	for _, op := range opcodes {
		if bytes.IndexByte([]byte(known), op) < 0 {
			t.Errorf("opcode %#02x", op)
		}
	}
}
