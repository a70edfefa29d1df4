package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"mochi/cmd/mochi/run"
)

// A run goes on with another batch, another queue, other shards and another
// storage: every sample still comes once an epoch, the newest keys stay, and
// the result does not depend on the number of replicas or of copies.
func TestResumeWithAnotherQueueAndBatch(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	first := filepath.Join(root, "first")
	train := func(out string, extra ...string) string {
		t.Helper()
		return mochi(t, append(append([]string{"train", "--data", data, "--out", out}, tiny...), extra...)...)
	}
	latest := func(run string) string { return filepath.Join(run, "checkpoints", "latest.safetensors") }
	// 16 a step: 32 keys in a queue of 50.
	train(first, "--epochs", "3", "--steps", "2")
	// 300 samples less 32, 12 a step: 23 steps more.
	longer := []string{"--epochs", "3", "--batch", "12", "--bn-group", "6", "--queue", "131", "--queue-shards", "7", "--pairs", "shard", "--queue-storage", "bf16", "--resume", latest(first)}
	one, two := filepath.Join(root, "one"), filepath.Join(root, "two")
	train(one, longer...)
	train(two, append(longer, "--replicas", "2", "--queue-copies", "2")...)
	mustEqual(t, one, two)
	inspect := func(run string) (i struct {
		Step  int64 `json:"step"`
		Epoch int   `json:"epoch"`
		Queue struct{ Length, Dim, Filled int }
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(mochi(t, "inspect", latest(run), "--json")), &i); err != nil {
			t.Fatal(err)
		}
		return i
	}
	if got := inspect(one); got.Step != 25 || got.Epoch != 3 || got.Queue.Length != 131 || got.Queue.Filled != 131 {
		t.Errorf("%+v, want step 25, epoch 3 and a full queue of 131", got)
	}
	// Shorter than what it holds, and in the same folder: 308 samples were
	// committed; 400 − 308 = 92 at 8 a step.
	train(one, "--epochs", "4", "--batch", "8", "--queue", "20", "--queue-shards", "4")
	if got := inspect(one); got.Step != 37 || got.Queue.Length != 20 || got.Queue.Filled != 20 {
		t.Errorf("%+v, want step 37 and a full queue of 20", got)
	}
	seen := map[string]int{}
	cursor := 0
	for _, out := range []string{first, one} {
		for _, l := range lines[run.SampleLine](t, filepath.Join(out, "samples.jsonl")) {
			for _, s := range l.Samples {
				seen[fmt.Sprint(cursor/100, " ", s)]++
				cursor++
			}
		}
	}
	if cursor != 32+23*12+12*8 {
		t.Errorf("%d samples", cursor)
	}
	for epoch := range 4 {
		for s := range 100 {
			if n := seen[fmt.Sprint(epoch, " ", s)]; n != 1 {
				t.Errorf("sample %d comes %d times in epoch %d", s, n, epoch)
			}
		}
	}
	refused(t, 2, []string{"train", "--data", data, "--out", one, "--batch", "64", "--queue", "63"}, "batch: 64 keys do not fit a queue of 63")
	refused(t, 2, append(append([]string{"train", "--data", data, "--out", one}, tiny...), "--dim", "8"), "dim: 16 ≠ 8")
}
