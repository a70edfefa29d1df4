package main

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mochi/model/probe"
)

func TestLinear(t *testing.T) {
	dir := splits(t, 8, 3, "cat", "dog", "owl")
	put(t, filepath.Join(dir, "train", "cat", "z.jpg"), []byte("\xff\xd8\xff no picture"))
	put(t, filepath.Join(dir, "val", "owl", "z.jpg"), []byte("\xff\xd8\xff no picture"))
	cache, report := filepath.Join(t.TempDir(), "features"), filepath.Join(t.TempDir(), "report")
	args := []string{"eval", "linear", "--checkpoint", "random:resnet8", "--data", dir, "--image-size", "12", "--json"}
	for _, c := range []struct {
		protocol string
		with     []string
		has      []string
		epochs   float64
	}{
		{probe.Sweep, nil, []string{"lr", "tried"}, 100},
		{probe.Sweep, []string{"--epochs", "7", "--views", "2", "--cache", cache, "--cache-format", "fp16", "--report", report}, []string{"lr"}, 7},
		{probe.MoCo, []string{"--epochs", "2"}, []string{"lr"}, 2},
		{probe.CMC, []string{"--epochs", "3", "--views", "1", "--cache", cache}, []string{"lr"}, 3},
		{probe.LBFGS, []string{"--cache", cache, "--feature", "embedding"}, []string{"l2", "tried"}, 0},
	} {
		full := append(append(append([]string{}, args...), "--protocol", c.protocol), c.with...)
		r := fields(t, append(c.has, "top1", "top5", "top1_best", "best_epoch", "feature", "extract_images_per_s", "seconds", "checkpoint"), full...)
		for name, want := range map[string]any{"protocol": c.protocol, "epochs": c.epochs, "classes": 3.0, "train": 24.0, "test": 9.0, "left_out": 2.0} {
			if r[name] != want {
				t.Errorf("%s: %s is %v, want %v", c.protocol, name, r[name], want)
			}
		}
		if r["fresh"] != (c.protocol == probe.MoCo) {
			t.Errorf("%s: fresh is %v", c.protocol, r["fresh"])
		}
		if r["top1_best"].(float64) < r["top1"].(float64) {
			t.Errorf("%s: %v", c.protocol, r)
		}
		if len(c.with) > 4 && c.protocol == probe.Sweep {
			continue // a report is there now
		}
		again := fields(t, nil, full...)
		if again["top1"] != r["top1"] || again["lr"] != r["lr"] {
			t.Errorf("%s is not repeatable: %v, %v", c.protocol, r, again)
		}
		if c.protocol == probe.LBFGS && again["extract_images_per_s"] != 0.0 {
			t.Errorf("features are computed again: %v", again)
		}
	}
	page, err := os.ReadFile(filepath.Join(report, "index.html"))
	if err != nil || !strings.Contains(string(page), "Most confident mistakes") || strings.Contains(string(page), "ZgotmplZ") {
		t.Errorf("report: %v", err)
	}
	f, err := os.Open(filepath.Join(report, "confusion.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	matrix, err := csv.NewReader(f).ReadAll()
	sum := 0
	for _, line := range matrix[1:] {
		for _, cell := range line[1:] {
			n, _ := strconv.Atoi(cell)
			sum += n
		}
	}
	if err != nil || len(matrix) != 4 || matrix[0][1] != "cat" || sum != 9 {
		t.Errorf("confusion matrix %v, %v", matrix, err)
	}
}

func TestLinearOfSeveral(t *testing.T) {
	dir := splits(t, 6, 3, "cat", "dog")
	r := fields(t, []string{"top1_mean", "top1_sd", "protocol"}, "eval", "linear", "--checkpoint", "random:resnet8,random:resnet20", "--data", dir, "--image-size", "12",
		"--epochs", "3", "--seeds", "2", "--json")
	runs := r["runs"].([]any)
	if len(runs) != 4 {
		t.Fatalf("%d runs of 2 checkpoints and 2 seeds", len(runs))
	}
	mean, squares := 0.0, 0.0
	for i, run := range runs {
		run := run.(map[string]any)
		if want := []string{"random:resnet8", "random:resnet20"}[i/2]; run["checkpoint"] != want || run["seed"] != float64(1+i%2) {
			t.Errorf("run %d: %v", i, run)
		}
		mean += run["top1"].(float64) / 4
	}
	for _, run := range runs {
		squares += math.Pow(run.(map[string]any)["top1"].(float64)-mean, 2)
	}
	if math.Abs(r["top1_mean"].(float64)-mean) > 1e-9 || math.Abs(r["top1_sd"].(float64)-math.Sqrt(squares/3)) > 1e-9 {
		t.Errorf("%v", r)
	}
}

// Ctrl-C leaves a cache that goes on.
func TestLinearInterrupted(t *testing.T) {
	data, cache := writeIDX(t, t.TempDir(), 6000, 20), filepath.Join(t.TempDir(), "features")
	args := []string{"eval", "linear", "--checkpoint", "random:resnet8", "--data", data, "--threads", "1", "--epochs", "2", "--cache", cache, "--json"}
	p := start(t, args...)
	training := func(pattern string) (size int64) { // of the larger file: that of the training images
		files, _ := filepath.Glob(filepath.Join(cache, pattern))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				size = max(size, info.Size())
			}
		}
		return size
	}
	for training("*.partial") < 100_000 { // some hundred images
		select {
		case <-p.done:
			t.Fatalf("it ended before it was interrupted:\n%s", p.errs.String())
		case <-time.After(time.Millisecond):
		}
	}
	p.signal(syscall.SIGINT)
	p.mustEnd(130)
	if p.out.String() != "" || !strings.Contains(p.errs.String(), "will be used") {
		t.Errorf("stdout %q, stderr:\n%s", p.out.String(), p.errs.String())
	}
	if training("*.partial") < 100_000 {
		t.Error("what was computed is gone")
	}
	status, out, errs := call(args...)
	if status != 0 || !strings.Contains(errs, "training images are in the cache") || !strings.Contains(out, `"train":6000`) {
		t.Errorf("status %d, %s\n%s", status, out, errs)
	}
}

func TestLinearRefusals(t *testing.T) {
	dir := splits(t, 2, 1, "cat", "dog")
	args := []string{"eval", "linear", "--checkpoint", "random:resnet8", "--data", dir}
	refused(t, 2, append(args, "--protocol", "sgd", "--feature", "x", "--cache-format", "fp8", "--views", "-1", "--seeds", "0", "--report", dir),
		"protocol:", "sweep, moco, cmc-in100, lbfgs", "feature:", "cache-format:", "views:", "seeds:", "report:")
	refused(t, 2, append(args, "--protocol", "lbfgs", "--views", "2", "--epochs", "3", "--seeds", "2", "--report", filepath.Join(dir, "new")), "views:", "epochs:", "report: is of one checkpoint")
	if err := os.RemoveAll(filepath.Join(dir, "val")); err != nil {
		t.Fatal(err)
	}
	refused(t, 2, args, "data:", "no test split")
}
