package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"mochi/model/exchange/pickle"
	"mochi/model/exchange/torch"
)

// mochi export writes a file that is whole, the same for the same checkpoint, and
// leaves nothing else behind; what it cannot do it says.
func TestExport(t *testing.T) {
	folder := writeIDX(t, t.TempDir(), 40, 12)
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	trained(t, append([]string{"train", "--data", folder, "--out", run, "--steps", "3"}, tiny...))
	latest := filepath.Join(run, "checkpoints", "latest.safetensors")
	exports := filepath.Join(dir, "exports")
	if err := os.Mkdir(exports, 0o755); err != nil {
		t.Fatal(err)
	}
	a, b, key := filepath.Join(exports, "a.pth"), filepath.Join(exports, "b.pth"), filepath.Join(exports, "key.pth")
	got := fields(t, []string{"path", "format", "arch", "encoder", "features", "step", "bytes"}, "export", latest, "--format", "torchvision", "--out", a, "--json")
	if got["encoder"] != "query" || got["arch"] != "resnet8" || got["features"] != 64. || got["step"] != 3. {
		t.Errorf("export --json: %v", got)
	}
	mochi(t, "export", latest, "--format", "torchvision", "--out", b)
	mochi(t, "export", latest, "--format", "torchvision", "--out", key, "--encoder", "key")
	if !bytes.Equal(contents(t, a), contents(t, b)) || bytes.Equal(contents(t, a), contents(t, key)) {
		t.Error("the same encoder gives other bytes, or the key encoder the same")
	}
	moco := filepath.Join(exports, "moco.pth.tar")
	mochi(t, "export", latest, "--format", "moco", "--out", moco)
	blob := contents(t, moco)
	root, err := torch.Open(bytes.NewReader(blob), int64(len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	if epoch, _ := root.(*pickle.Dict).Get("epoch"); epoch != int64(1) { // 3 × 16 of 40 samples
		t.Errorf("epoch %v", epoch)
	}

	model, folded := filepath.Join(dir, "encoder.onnx"), filepath.Join(dir, "folded.onnx")
	mochi(t, "export", latest, "--format", "onnx", "--out", model)
	mochi(t, "export", latest, "--format", "onnx", "--out", folded, "--fold-bn")
	if whole := contents(t, model); !bytes.Contains(whole, []byte("preprocessing")) || len(contents(t, folded)) >= len(whole) {
		t.Error("a model without its preprocessing, or folded and no smaller")
	}
	refused(t, 2, []string{"export", latest, "--format", "torchvision", "--out", a, "--fold-bn"}, "fold-bn:", "onnx only")

	refused(t, 2, []string{"export", latest, "--encoder", "both"}, "3 faults", "format: missing", "out: missing", "encoder:")
	refused(t, 2, []string{"export", latest, "--format", "tensorflow", "--out", a}, "tensorflow", "torchvision, moco")
	refused(t, 2, []string{"export", latest, "--format", "moco", "--out", a, "--encoder", "key"}, "both encoders")
	refused(t, 1, []string{"export", latest, "--format", "timm", "--out", filepath.Join(exports, "timm")}, "resnet8", "torchvision or onnx")
	refused(t, 1, []string{"export", latest, "--format", "torchvision", "--out", filepath.Join(exports, "no", "where")}, "no such file")
	refused(t, 1, []string{"export", filepath.Join(exports, "none"), "--format", "torchvision", "--out", a}, "no such file")
	entries, err := os.ReadDir(exports)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v in the folder, %v", entries, err)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
