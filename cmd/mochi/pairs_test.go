package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
)

// Where pairs are of all N hardest, neither the number of shards nor that of
// replicas changes a bit in 20 steps; where they stay inside a shard it is
// another loss.
func TestShardsOfAWholeQueueChangeNothing(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	train := func(name string, args ...string) string {
		out := filepath.Join(root, name)
		mochi(t, slices.Concat([]string{"train", "--data", data, "--out", out, "--steps", "20"}, tiny, args)...)
		return out
	}
	one := train("one", "--queue-shards", "1")
	want := steps(t, one)
	if len(want) != 20 {
		t.Fatalf("%d steps", len(want))
	}
	for _, c := range [][2]string{{"16", "1"}, {"7", "2"}, {"1", "2"}, {"16", "4"}, {"50", "3"}} {
		out := train(strings.Join(c[:], "-"), "--queue-shards", c[0], "--replicas", c[1])
		mustEqual(t, one, out)
		for i, l := range steps(t, out) {
			if l.Figures != want[i].Figures || l.Digest != want[i].Digest {
				t.Fatalf("%s shards, %s replicas, step %d: %+v, want %+v", c[0], c[1], i+1, l, want[i])
			}
		}
	}
	if l := steps(t, train("shard", "--pairs", "shard")); l[0].Loss == want[0].Loss {
		t.Error("pairs inside a shard have the same loss: the test shows nothing")
	}
}

// What pairs are drawn from stands in the run's configuration and in its
// checkpoint. A checkpoint from before there was the setting goes on with pairs
// inside a shard, unless another is asked for; a new run has them of all N.
func TestPairsAreWhatTheCheckpointHad(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	says := func(run, want string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(run, "config.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		st, err := checkpoint.Load(filepath.Join(run, "checkpoints", "latest.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"config.yaml": string(text), "the checkpoint": st.Config} {
			if c, err := config.Parse([]byte(text)); err != nil || c.Pairs != want {
				t.Errorf("%s of %s: pairs %q, want %q: %v", name, run, c.Pairs, want, err)
			}
		}
	}
	train := func(name string, steps int, args ...string) (run, said string) {
		run = filepath.Join(root, name)
		p := start(t, slices.Concat([]string{"train", "--data", data, "--out", run, "--steps", fmt.Sprint(steps)}, tiny, args)...)
		p.mustEnd(0)
		return run, p.errs.String()
	}
	all, _ := train("all", 3)
	says(all, "all")
	straight, said := train("straight", 6, "--pairs", "shard")
	says(straight, "shard")
	if !strings.Contains(said, "not from all 12 as published") {
		t.Errorf("it does not say that these are not the paper's pairs:\n%s", said)
	}

	// As a run of a version without the setting has left it.
	made, _ := train("made", 3, "--pairs", "shard")
	st, err := checkpoint.Load(filepath.Join(made, "checkpoints", "latest.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	st.Config = strings.ReplaceAll(st.Config, "pairs: shard\n", "")
	old := filepath.Join(root, "old.safetensors")
	if err := checkpoint.Save(old, st); err != nil {
		t.Fatal(err)
	}
	resumed, said := train("resumed", 6, "--resume", old)
	says(resumed, "shard")
	if strings.Contains(said, "settings changed") {
		t.Errorf("a setting has changed:\n%s", said)
	}
	mustEqual(t, straight, resumed)
	again, _ := train("resumed", 7) // the same folder, the same command
	says(again, "shard")
	changed, said := train("changed", 6, "--resume", old, "--pairs", "all")
	says(changed, "all")
	if !strings.Contains(said, "settings changed from step 3 on: pairs: shard → all") {
		t.Errorf("it does not say what has changed:\n%s", said)
	}

	refused(t, 2, slices.Concat([]string{"train", "--data", data, "--out", filepath.Join(root, "no"), "--queue-copies", "2", "--pairs", "all"}, tiny), "use pairs shard, or queue-copies all")
	spread, _ := train("spread", 2, "--queue-copies", "2")
	says(spread, "shard")
}
