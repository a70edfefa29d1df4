package run

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

// A run is resumed from the checkpoint of step 4 with another learning rate, goes on
// to step 9 without storing anything, and is started again with the same command:
// what was committed with the new settings is still there, though the checkpoint has
// the old ones. What was committed with the old ones stays beside it, and who was
// left out is still known.
func TestStartedAgainWithChangedSettings(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	before := config.Default()
	after := before
	after.LR *= 2
	yaml, err := before.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var last protocol.Commit
	open := func(cfg config.Job) (j *Job, said string) {
		var text bytes.Buffer
		j, err := Open(folder, cfg, Beginning{Resume: "auto"}, NewProgress(&text, cfg))
		if err != nil {
			t.Fatal(err)
		}
		return j, text.String()
	}
	train := func(j *Job, from, to int64) {
		for step := from; step <= to; step++ {
			c := protocol.Commit{Step: step, Batch: 8, Cursor: 8 * (step - 1), Digest: "g"}
			c.Chain = c.Link(last.Chain)
			if err := j.Log.Append(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			last = c
		}
	}
	committed := func(j *Job) int64 {
		c, _, err := j.Log.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c.Step
	}

	j, _ := open(before)
	train(j, 1, 6)
	if err := j.Log.SaveNote(t.Context(), "audits", "b computes wrongly"); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.SaveStep(j.Store.Dir, &checkpoint.State{
		Arch: "tiny", Step: 4, Cursor: 32, Config: string(yaml), Net: &network.Network{Arch: "tiny", Dim: 1},
		K: 1, Dim: 1, Queue: []float32{1}, QueueLabels: []int32{-1},
	}, 3); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j, said := open(after)
	if !strings.Contains(said, "settings changed from step 4 on: lr") || committed(j) != 0 {
		t.Fatalf("%d steps are committed; it says\n%s", committed(j), said)
	}
	if _, err := os.Stat(filepath.Join(folder, "commits.1")); err != nil {
		t.Error(err)
	}
	if log, err := os.ReadFile(filepath.Join(folder, LogFile)); err != nil || strings.Count(string(log), `"event":"settings"`) != 1 ||
		!strings.Contains(string(log), fmt.Sprintf(`"step":4,"old":{"lr":"%g"},"new":{"lr":"%g"}`, before.LR, after.LR)) {
		t.Errorf("log.jsonl: %s, %v", log, err)
	}
	if kept, err := os.ReadFile(filepath.Join(folder, "config.yaml.1")); err != nil || string(kept) != string(yaml) {
		t.Errorf("the settings of before: %v\n%s", err, kept)
	}
	last = protocol.Commit{}
	train(j, 5, 9)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j, said = open(after)
	if strings.Contains(said, "settings changed") || committed(j) != 9 {
		t.Errorf("started again with the same command: %d steps are committed; it says\n%s", committed(j), said)
	}
	if note, err := j.Log.Note(t.Context(), "audits"); note != "b computes wrongly" || err != nil {
		t.Errorf("the note is %q, %v", note, err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "config.yaml.2")); err == nil {
		t.Error("settings were kept that did not change")
	}

	// Of a run that is over nothing changes, whatever the settings.
	var text bytes.Buffer
	j, err = Open(folder, before, Beginning{Resume: "auto", Over: func(st *checkpoint.State) bool { return Over(before, 4, st) }}, NewProgress(&text, before))
	if before.Steps = 4; err != nil || j.Over {
		t.Fatalf("%v, over %v before all epochs", err, j.Over)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	j, err = Open(folder, after, Beginning{Resume: "auto", Over: func(st *checkpoint.State) bool { return Over(before, 4, st) }}, NewProgress(&text, after))
	if err != nil || !j.Over {
		t.Fatalf("%v, over %v", err, j.Over)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if is, err := os.ReadFile(filepath.Join(folder, "config.yaml")); err != nil || string(is) != string(yaml) {
		t.Errorf("config.yaml of a run that is over changed: %v", err)
	}
}
