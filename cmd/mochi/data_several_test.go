package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
	"mochi/replica/data/survey"
)

// lastDigest is that of the last step in a run's log.
func lastDigest(t *testing.T, dir string) (digest string) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var at run.StepLine
		if json.Unmarshal(line, &at) == nil && at.Digest != "" { // not an event
			digest = at.Digest
		}
	}
	return digest
}

// surveyed is what data inspect says.
func surveyed(t *testing.T, args ...string) (r survey.Report) {
	t.Helper()
	status, out, errs := call(append([]string{"data", "inspect", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
		t.Fatalf("%v: status %d, %v\n%s", args, status, err, errs)
	}
	return r
}

// Two sources of different kinds as one: inspect, training, evaluation and pack agree,
// and a run goes on with the same ones in the same order only.
func TestSeveralSources(t *testing.T) {
	dir, idx, base := photos(t, 9, "cat", "3"), writeIDX(t, t.TempDir(), 24, 8), t.TempDir()
	both := []string{"--data", dir, "--data", idx}
	shards := filepath.Join(base, "train-{000..}.tar")
	status, out, errs := call(append([]string{"data", "pack", "--out", shards, "--json"}, both...)...)
	var packed packResult
	if status != 0 || json.Unmarshal([]byte(out), &packed) != nil || packed.Images != 18+24+8 {
		t.Fatalf("status %d, %s\n%s", status, out, errs)
	}
	seen, again := surveyed(t, both...), surveyed(t, shards)
	if seen.Train.Images != 42 || seen.Test == nil || seen.Test.Images != 8 || seen.Classes != 5 || seen.Kind != "several" || seen.Formats["JPEG"] != 6 {
		t.Errorf("%+v", seen)
	}
	if !slices.Equal(seen.ByClass, again.ByClass) || seen.Files.Train != 18 || seen.Files.Read != 4 || seen.Files.Found != 22 {
		t.Errorf("%+v\nbecomes\n%+v", seen, again)
	}
	var digests, figures []string
	for _, source := range [][]string{both, {"--data", shards}} {
		out := filepath.Join(t.TempDir(), "run")
		trained(t, append([]string{"train", "--out", out, "--steps", "3"}, append(tiny, source...)...))
		digests = append(digests, lastDigest(t, out))
		_, text, _ := call(append([]string{"eval", "knn", "--checkpoint", "random:resnet8", "--image-size", "12", "--k", "5", "--json"}, source...)...)
		text, _, _ = strings.Cut(text, `"leaked_paths"`) // they name the files
		figures = append(figures, text)
	}
	if digests[0] == "" || digests[0] != digests[1] || figures[0] != figures[1] || !strings.Contains(figures[0], `"train":42,"test":8`) {
		t.Errorf("digests %v, figures %v", digests, figures)
	}

	dest := filepath.Join(base, "run")
	file := filepath.Join(base, "job.yaml")
	put(t, file, []byte("data: ["+dir+", "+idx+"]\n"))
	trained(t, append([]string{"train", "--config", file, "--out", dest, "--steps", "3"}, tiny...))
	if lastDigest(t, dest) != digests[0] {
		t.Error("a list of sources in a file is not the same data")
	}
	status, _, errs = call(append([]string{"train", "--data", idx, "--data", dir, "--out", dest, "--steps", "4"}, tiny...)...)
	if status == 0 || !strings.Contains(errs, "other data") {
		t.Errorf("in another order: status %d\n%s", status, errs)
	}
	refused(t, 2, []string{"data", "inspect", "--data", dir, "--data", dir}, "given twice")
	refused(t, 2, []string{"data", "inspect", dir, "--data", dir}, "stray argument")
	refused(t, 2, []string{"data", "pack", "--data", dir}, "OUT is missing")
}
