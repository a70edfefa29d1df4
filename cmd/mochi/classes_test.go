package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// --classes cuts a data set down, in training and in evaluation, and is written
// down so that the run goes on without the file.
func TestClasses(t *testing.T) {
	dir := splits(t, 8, 2, "cat", "dog", "owl")
	list := filepath.Join(t.TempDir(), "two.txt")
	put(t, list, []byte("owl\ncat\n"))
	run := filepath.Join(t.TempDir(), "run")
	log := trained(t, training(dir, run, "--classes", list))
	if !strings.Contains(log, "2 of its 3 classes") || !strings.Contains(log, "16 training images, 4 test images") {
		t.Errorf("the choice is not said:\n%s", log)
	}
	config, err := os.ReadFile(filepath.Join(run, "config.yaml"))
	if err != nil || !strings.Contains(string(config), "classes: cat,owl\n") {
		t.Errorf("config.yaml: %v\n%s", err, config)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again")
	trained(t, []string{"train", "--data", dir, "--out", again, "--config", filepath.Join(run, "config.yaml")})
	latest := func(run string) string { return filepath.Join(run, "checkpoints", "latest.safetensors") }
	if status, out, errs := call("diff", latest(run), latest(again)); status != 0 {
		t.Errorf("the same settings give another checkpoint: %s%s", out, errs)
	}
	knn := fields(t, nil, "eval", "knn", "--checkpoint", latest(run), "--data", dir, "--classes", "cat,owl", "--json")
	if knn["train"] != 16.0 || knn["test"] != 4.0 || knn["classes"] != 2.0 || len(knn["classes_sha256"].(string)) != 64 {
		t.Errorf("kNN of two classes: %v", knn)
	}
	refused(t, 2, []string{"eval", "knn", "--checkpoint", latest(run), "--data", dir, "--classes", "imagenet100"}, "classes: 100 of 100 ids are no class of the data set", "such as cat")
	refused(t, 2, training(dir, run, "--classes", "cat,dog"), "classes: cat,owl ≠ cat,dog")
	refused(t, 2, training(dir, run, "--classes", "cat"), "classes: cat: no such file")
}
