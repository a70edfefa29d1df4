package main

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/replica/checkpoint"
)

// What mochi exports comes back by mochi import, and is taken by every command that
// takes a checkpoint; training goes on from it.
func TestImport(t *testing.T) {
	folder := writeIDX(t, t.TempDir(), 40, 12)
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	trained(t, append([]string{"train", "--data", folder, "--out", run, "--steps", "3"}, tiny...))
	latest := filepath.Join(run, "checkpoints", "latest.safetensors")
	moco, plain, back := filepath.Join(dir, "moco.pth.tar"), filepath.Join(dir, "plain.pth"), filepath.Join(dir, "back.safetensors")
	mochi(t, "export", latest, "--format", "moco", "--out", moco)
	mochi(t, "export", latest, "--format", "torchvision", "--out", plain)

	got := fields(t, []string{"loaded", "missing", "unexpected", "layout", "arch", "head", "dim", "epoch"}, "import", moco, "--out", back, "--json")
	if got["layout"] != "MoCo" || got["arch"] != "resnet8" || got["epoch"] != 1. || len(got["missing"].([]any)) != 0 || len(got["unexpected"].([]any)) != 0 {
		t.Errorf("import --json: %v", got)
	}
	want, err := checkpoint.Inspect(latest)
	if err != nil {
		t.Fatal(err)
	}
	is, err := checkpoint.Inspect(back)
	if err != nil {
		t.Fatal(err)
	}
	if is.Digest.EncoderQ != want.Digest.EncoderQ || is.Digest.EncoderK != want.Digest.EncoderK || is.Digest.Optimizer != want.Digest.Optimizer || is.Digest.Buffers != want.Digest.Buffers {
		t.Errorf("digests %+v, want %+v", is.Digest, want.Digest)
	}

	// The same figures from each of the files.
	knn := func(path string) any {
		return fields(t, nil, "eval", "knn", "--checkpoint", path, "--data", folder, "--image-size", "12", "--json")["knn_top1"]
	}
	refused(t, 2, []string{"eval", "knn", "--checkpoint", latest, "--data", folder, "--image-size", "12", "--head", "mlp"}, "image-size: has no effect", "head: has no effect")
	if own := fields(t, nil, "eval", "knn", "--checkpoint", latest, "--data", folder, "--json")["knn_top1"]; own != knn(plain) || own != knn(moco) {
		t.Error("other kNN figures from exports")
	}
	if info := fields(t, []string{"digest"}, "inspect", plain, "--json"); info["format"] != "torchvision or timm" {
		t.Errorf("inspect: %v", info)
	}

	// Training goes on from the reference's file: its weights, queue and momentum.
	again := filepath.Join(dir, "again")
	trained(t, append([]string{"train", "--data", folder, "--out", again, "--steps", "2", "--resume", moco}, tiny...))
	if after, err := checkpoint.Inspect(filepath.Join(again, "checkpoints", "latest.safetensors")); err != nil || after.Step != 2 {
		t.Errorf("%+v, %v", after, err)
	}
	refused(t, 2, append(append([]string{"train", "--data", folder, "--out", filepath.Join(dir, "other"), "--resume", moco}, tiny...), "--arch", "resnet20"), "resume:", "does not fit resnet20")
	refused(t, 2, append(append([]string{"train", "--data", folder, "--out", filepath.Join(dir, "other"), "--resume", moco}, tiny...), "--dim", "17"), "resume:", "dimension 16")
	absent(t, filepath.Join(dir, "other"))

	refused(t, 2, []string{"import", moco}, "out: missing")
	refused(t, 2, []string{"import", moco, "--out", back, "--arch", "vgg"}, "vgg", "resnet50")
	refused(t, 1, []string{"import", latest, "--out", back}, "checkpoint of mochi already")
	refused(t, 1, []string{"import", moco, "--out", back, "--arch", "resnet18"}, "does not fit resnet18")
	refused(t, 1, []string{"import", filepath.Join(dir, "none"), "--out", back}, "no such file")
	put(t, filepath.Join(dir, "evil"), []byte("cposix\nsystem\n(S'touch evil-was-here'\ntR."))
	refused(t, 1, []string{"import", filepath.Join(dir, "evil"), "--out", back}, "would run code", "posix.system")
	refused(t, 1, []string{"eval", "knn", "--checkpoint", filepath.Join(dir, "evil"), "--data", folder}, "posix.system")
	absent(t, "evil-was-here")
}

// mochi embed writes a row an image, the same from each form of a checkpoint, and
// says which image a row is.
func TestEmbed(t *testing.T) {
	data := photos(t, 4, "cat", "dog")
	put(t, filepath.Join(data, "cat", "broken.jpg"), []byte{0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0})
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.npy"), filepath.Join(dir, "b.npy")
	got := fields(t, []string{"out", "dim", "images", "left_out"}, "embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data, "--out", a, "--json")
	if got["images"] != 8. || got["left_out"] != 1. || got["dim"] != 64. {
		t.Fatalf("embed --json: %v", got)
	}
	blob := contents(t, a)
	if header := string(blob[10:128]); !strings.Contains(header, "'shape': (8, 64)") || !strings.HasSuffix(header, "\n") || len(blob) != 128+8*64*4 {
		t.Errorf("header %q, %d bytes", header, len(blob))
	}
	list := strings.Split(strings.TrimSpace(string(contents(t, filepath.Join(dir, "a.csv")))), "\n")
	if len(list) != 9 || list[0] != "row,split,label,path" || !strings.HasPrefix(list[1], "0,train,0,") || !strings.HasPrefix(list[8], "7,train,1,") || strings.Contains(strings.Join(list, ""), "broken") {
		t.Errorf("list %q", list)
	}

	mochi(t, "embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data, "--out", b, "--normalize", "--threads", "1")
	for row := range 8 {
		var plain, unit [64]float64
		var sum float64
		for i := range plain {
			at := 128 + 4*(row*64+i)
			plain[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(blob[at:])))
			unit[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(contents(t, b)[at:])))
			sum += plain[i] * plain[i]
		}
		for i := range plain {
			if math.Abs(unit[i]-plain[i]/math.Sqrt(sum)) > 1e-6 {
				t.Fatalf("row %d: %g, want %g", row, unit[i], plain[i]/math.Sqrt(sum))
			}
		}
	}

	table := filepath.Join(dir, "c.parquet")
	mochi(t, "embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data, "--out", table, "--feature", "embedding")
	if p := contents(t, table); !bytes.HasPrefix(p, []byte("PAR1")) || !bytes.HasSuffix(p, []byte("PAR1")) {
		t.Error("no Parquet file")
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, 2, []string{"embed", "--out", "x.csv", "--feature", "head", "--split", "val"}, "out:", "feature:", "split:", "data: missing", "checkpoint: missing")
	refused(t, 2, []string{"embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data, "--out", a, "--split", "test"}, "no test split")
	refused(t, 1, []string{"embed", "--checkpoint", "random:resnet8", "--image-size", "12", "--data", data, "--out", filepath.Join(dir, "no", "x.npy")}, "no such file")
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("%v in the folder, %v", after, err)
	}
}
