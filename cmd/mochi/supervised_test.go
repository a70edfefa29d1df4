package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A supervised run is the same for one replica and three and when it was interrupted,
// says its accuracy before training and after every epoch, and leaves a checkpoint that
// other commands read.
func TestSupervised(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 96, 40)
	root := t.TempDir()
	train := func(name string, extra ...string) string {
		out := filepath.Join(root, name)
		mochi(t, append(append(append([]string{"train", "--data", data, "--out", out}, tiny...),
			"--supervised", "--label-smoothing", "0.1", "--recipe", "none", "--epochs", "4", "--knn-every", "10"), extra...)...)
		return out
	}
	one, three := train("one"), train("three", "--replicas", "3")
	train("twice", "--steps", "10")
	mustEqual(t, one, three)
	mustEqual(t, one, train("twice"))

	all := steps(t, one)
	if first, last := all[0], all[len(all)-1]; len(all) != 24 || last.Loss > first.Loss || last.TrainAcc < 0.5 || last.Proxy != 0 || last.QueueAge != 0 {
		t.Errorf("%d steps, first %+v, last %+v", len(all), first, last)
	}
	text, err := os.ReadFile(filepath.Join(one, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var measured []struct {
		Event, When string
		Step        int64
		Top1, Top5  float64
		Test        int
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, `"event":"accuracy"`) {
			if strings.Contains(line, `"event":"knn"`) || strings.Contains(line, `"event":"geometry"`) {
				t.Errorf("evaluated as an encoder: %s", line)
			}
			continue
		}
		measured = append(measured, struct {
			Event, When string
			Step        int64
			Top1, Top5  float64
			Test        int
		}{})
		if err := json.Unmarshal([]byte(line), &measured[len(measured)-1]); err != nil {
			t.Fatal(err)
		}
	}
	// One that falls due while the one before is on its way may be left out.
	if n := len(measured); n < 2 || n > 5 || measured[0].Step != 0 || measured[n-1].When != "after training" || measured[n-1].Step != 24 {
		t.Fatalf("accuracy of %+v", measured)
	}
	if m := measured[len(measured)-1]; m.Test != 40 || m.Top1 <= 0.3 || m.Top5 != 1 { // of four classes
		t.Errorf("%+v", m)
	}
	latest := filepath.Join(one, "checkpoints", "latest.safetensors")
	if got := mochi(t, "eval", "knn", "--checkpoint", latest, "--data", data, "--json"); !strings.Contains(got, `"test":40`) {
		t.Errorf("eval knn: %s", got)
	}
	usage := append([]string{"train", "--data", data, "--out", filepath.Join(root, "bad")}, tiny...)
	refused(t, 2, append(usage, "--supervised", "--oracle", "--probe"), "oracle: is of negatives", "probe: is a classifier beside an encoder")
	refused(t, 2, append(usage, "--label-smoothing", "0.1"), "label-smoothing: is of --supervised")
	refused(t, 2, append(usage, "--supervised", "--label-smoothing", "1"), "label-smoothing:")
}
