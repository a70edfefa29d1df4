package torch

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/model/exchange/pickle"
)

// Files that PyTorch wrote (tools/exchange-check/golden.py), of two versions, in
// both forms and all protocols of pickles.
func TestReadsWhatPyTorchWrites(t *testing.T) {
	files, err := filepath.Glob("testdata/*.pt")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	text, err := os.ReadFile("testdata/values.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		blob, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		root, err := Open(bytes.NewReader(blob), int64(len(blob)))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		compare(t, path, root, want)
	}
}

// compare finds what the file says in what was read.
func compare(t *testing.T, where string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		if tensor, isTensor := got.(*Tensor); isTensor {
			compareTensor(t, where, tensor, want)
			return
		}
		d, isDict := got.(*pickle.Dict)
		if !isDict {
			t.Errorf("%s is a %T", where, got)
			return
		}
		for name, v := range want {
			inner, ok := d.Get(name)
			if !ok {
				t.Errorf("%s: %s is missing", where, name)
				continue
			}
			compare(t, where+" "+name, inner, v)
		}
	case float64:
		n, isInt := got.(int64)
		if f, isFloat := got.(float64); isInt && float64(n) != want || isFloat && f != want || !isInt && !isFloat {
			t.Errorf("%s: %v, want %v", where, got, want)
		}
	case string:
		if got != want {
			t.Errorf("%s: %v, want %v", where, got, want)
		}
	}
}

func compareTensor(t *testing.T, where string, tensor *Tensor, want map[string]any) {
	t.Helper()
	a := tensor.Array()
	values, err := a.Float32s()
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var numbers, shape []float64
	for _, v := range want["values"].([]any) {
		numbers = append(numbers, v.(float64))
	}
	for _, v := range want["shape"].([]any) {
		shape = append(shape, v.(float64))
	}
	if len(shape) != len(a.Shape) || len(numbers) != len(values) {
		t.Errorf("%s: shape %v, want %v", where, a.Shape, shape)
		return
	}
	for i, v := range values {
		if float64(v) != float64(float32(numbers[i])) && !(math.IsInf(float64(v), 0) && math.IsInf(numbers[i], 0)) {
			t.Errorf("%s: %v, want %v", where, values, numbers)
			return
		}
	}
}

// Whatever is cut off a file, the reader says so, or everything that was asked for
// is there (a zip's directory stands at its end; of a legacy file the last bytes
// are elements).
func TestEveryCutIsFound(t *testing.T) {
	for _, path := range []string{"testdata/zip-2150.pt", "testdata/legacy-1131.pt"} {
		blob, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(blob); n += 1 + n/64 {
			if _, err := Open(bytes.NewReader(blob[:n]), int64(n)); err == nil {
				t.Fatalf("%s cut to %d of %d bytes is read", path, n, len(blob))
			}
		}
	}
}

// No damage of a byte makes the reader fall, or take more than the file has.
func TestDamagedFiles(t *testing.T) {
	for _, path := range []string{"testdata/zip-2150.pt", "testdata/legacy-2150.pt", "testdata/protocol5-2150.pt"} {
		blob, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(blob); i += 3 {
			damaged := bytes.Clone(blob)
			damaged[i] ^= 0xff
			if root, err := Open(bytes.NewReader(damaged), int64(len(damaged))); err == nil {
				readAll(root, 0)
			}
		}
	}
}

// readAll reads every tensor of a value.
func readAll(v any, depth int) {
	switch v := v.(type) {
	case *Tensor:
		a := v.Array()
		if a.Check() == nil && a.Len() < 1<<20 {
			a.Float32s() //nolint:errcheck // only that it ends
		}
	case *pickle.Dict:
		for _, i := range v.Items {
			if depth < 8 {
				readAll(i.Value, depth+1)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.pt")
	for _, path := range files {
		blob, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		if root, err := Open(bytes.NewReader(blob), int64(len(blob))); err == nil {
			readAll(root, 0)
		}
	})
}

func TestOldTarIsNamed(t *testing.T) {
	tar := make([]byte, 1024)
	copy(tar[257:], "ustar")
	if _, err := Open(bytes.NewReader(tar), int64(len(tar))); err == nil || !strings.Contains(err.Error(), "before 0.1.10") {
		t.Errorf("got %v", err)
	}
	if !slices.ContainsFunc([][]byte{tar}, Is) {
		t.Error("a tar is not recognised")
	}
}
