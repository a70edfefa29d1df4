package main

import (
	"path/filepath"
	"testing"
)

// A run logs kNN of both features and geometry before training and after every
// epoch; mochi eval repeats the last of them from the checkpoint.
func TestEvaluationsOfARun(t *testing.T) {
	folder := writeIDX(t, t.TempDir(), 40, 12)
	run := filepath.Join(t.TempDir(), "run")
	trained(t, append(append([]string{"train", "--data", folder, "--out", run}, tiny...),
		"--epochs", "3", "--knn-every", "1", "--checkpoint-every", "0", "--oracle", "--mochi-warmup", "1", "--knn-images", "20"))
	type event struct {
		Event, When, Split    string
		Step                  int64
		Epoch                 int
		Train, Test, Images   int
		Alignment, Uniformity float64
		Spread                float64
		Proxy                 float64 `json:"proxy_acc"`
		ProxyHard             float64 `json:"proxy_acc_hard"`
		Top1                  float64 `json:"knn_top1"`
		Top1Embedding         float64 `json:"knn_top1_embedding"`
	}
	var knn, geometry []event
	for _, e := range lines[event](t, filepath.Join(run, "log.jsonl")) {
		switch e.Event {
		case "knn":
			knn = append(knn, e)
		case "geometry":
			geometry = append(geometry, e)
		}
	}
	// One before training and one an epoch of 3; one that falls due while the state before
	// it is still on its way comes a step later or, when the next is due by then, not at
	// all. The last is never left out.
	if n := len(knn); n < 2 || n > 4 || len(geometry) != n || knn[0].Step != 0 || knn[n-1].Step != 8 {
		t.Fatalf("kNN %+v, geometry %+v; want one before training and one an epoch of 3", knn, geometry)
	}
	for i := range knn {
		k, g := knn[i], geometry[i]
		// 40 samples an epoch, 16 a step: epochs end within steps 3, 5 and 8.
		epoch := map[int64]int{0: 0, 3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 3}
		if want, ok := epoch[k.Step]; !ok || i > 0 && k.Step <= knn[i-1].Step || g.Step != k.Step || k.Epoch != want || g.Epoch != want {
			t.Errorf("evaluation %d is of steps %d and %d, epochs %d and %d", i, k.Step, g.Step, k.Epoch, g.Epoch)
		}
		if k.Train != 20 || k.Test != 12 || g.Images != 12 || g.Split != "test" {
			t.Errorf("evaluation %d: %+v, %+v", i, k, g)
		}
		if g.Alignment <= 0 || g.Alignment > 4 || g.Uniformity >= 0 || g.Uniformity < -8 || g.Spread <= 0 || g.ProxyHard > g.Proxy {
			t.Errorf("evaluation %d: %+v", i, g)
		}
	}
	latest := filepath.Join(run, "checkpoints", "latest.safetensors")
	got := fields(t, []string{"alignment", "uniformity", "proxy_acc", "proxy_acc_hard", "spread", "spread_min", "spread_max", "spread_per_dim", "images", "split", "mochi", "oracle", "queue", "queue_filled"},
		"eval", "geometry", "--checkpoint", latest, "--data", folder, "--seed", "7", "--json")
	last := geometry[len(geometry)-1]
	for name, want := range map[string]float64{"alignment": last.Alignment, "uniformity": last.Uniformity, "spread": last.Spread,
		"proxy_acc": last.Proxy, "proxy_acc_hard": last.ProxyHard, "queue": 50, "queue_filled": 50} {
		if got[name] != want {
			t.Errorf("mochi eval geometry: %s %v, the run's %v", name, got[name], want)
		}
	}
	if oracle, ok := got["oracle"].(bool); !ok || !oracle || got["mochi"] != "12,16,6" || len(got["spread_per_dim"].([]any)) != 16 {
		t.Errorf("mochi eval geometry: %v", got)
	}
	for feature, want := range map[string]float64{"backbone": knn[len(knn)-1].Top1, "embedding": knn[len(knn)-1].Top1Embedding} {
		got := fields(t, []string{"knn_top1"}, "eval", "knn", "--checkpoint", latest, "--data", folder, "--limit-train", "20", "--feature", feature, "--json")
		if got["knn_top1"] != want {
			t.Errorf("mochi eval knn --feature %s: %v, the run's %g", feature, got["knn_top1"], want)
		}
	}
	random := fields(t, nil, "eval", "geometry", "--checkpoint", "random:resnet8", "--data", folder, "--mochi", "8,4,0", "--images", "5", "--json")
	if random["images"] != 5.0 || random["queue_filled"] != 0.0 || random["mochi"] != "8,4,0" {
		t.Errorf("of an untrained encoder: %v", random)
	}
	refused(t, 2, []string{"eval", "geometry", "--checkpoint", latest, "--data", folder, "--mochi", "51,1,1", "--recipe", "x"}, "2 faults", "mochi:", "recipe:")
	refused(t, 2, []string{"eval", "geometry", "--images", "-1"}, "images:", "data: missing", "checkpoint: missing")
}
