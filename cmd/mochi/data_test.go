package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
	"mochi/replica/data/survey"
)

// A folder, packed and inspected: the shards hold the same images, and the
// same seed trains the same from them, to the digest of the parameters.
func TestPackedDataTrainTheSame(t *testing.T) {
	dir, shards := photos(t, 9, "Kühe", "猫"), filepath.Join(t.TempDir(), "x-{000..}.tar")
	status, out, errs := call("data", "pack", dir, shards, "--shard-size", "4k", "--json")
	var packed packResult
	if status != 0 || json.Unmarshal([]byte(out), &packed) != nil || packed.Images != 18 || len(packed.Shards) < 2 {
		t.Fatalf("status %d, %s\n%s", status, out, errs)
	}
	refused(t, 2, []string{"data", "pack", dir, shards}, "remove the old shards")
	var reports [2]survey.Report
	for i, path := range []string{dir, shards} {
		status, out, errs := call("data", "inspect", path, "--json")
		if status != 0 || json.Unmarshal([]byte(out), &reports[i]) != nil {
			t.Fatalf("status %d, %s\n%s", status, out, errs)
		}
	}
	for i, c := range reports[0].ByClass {
		if got := reports[1].ByClass[i]; got != c {
			t.Errorf("class %+v becomes %+v", c, got)
		}
	}
	if a, b := reports[0], reports[1]; a.Train != b.Train || len(b.Corrupt) > 0 || a.Formats["PNG"] != b.Formats["PNG"] || b.Kind != "tar" {
		t.Errorf("%+v\nbecomes\n%+v", a, b)
	}
	var digests [2]string
	for i, path := range []string{dir, shards} {
		out := filepath.Join(t.TempDir(), "run")
		trained(t, training(path, out))
		log, err := os.ReadFile(filepath.Join(out, "log.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(log) {
			var at run.StepLine
			if json.Unmarshal(line, &at) == nil && at.Step == 3 && at.Digest != "" { // not an event
				digests[i] = at.Digest
			}
		}
	}
	if digests[0] == "" || digests[0] != digests[1] {
		t.Errorf("digests after 3 steps: %v", digests)
	}
}

// A corrupt image is named, once, and ends a strict job with status 1.
func TestStrictData(t *testing.T) {
	dir := photos(t, 18, "a")
	bad := filepath.Join(dir, "a", "a.jpg")
	put(t, bad, []byte("\xff\xd8\xff no photo"))
	log := trained(t, training(dir, filepath.Join(t.TempDir(), "run"), "--steps", "8"))
	if n := strings.Count(log, bad); n != 1 || !strings.Contains(log, "1 image could not be decoded") {
		t.Errorf("%s is named %d times:\n%s", bad, n, log)
	}
	refused(t, 1, training(dir, filepath.Join(t.TempDir(), "run"), "--steps", "8", "--strict-data"), bad, "--strict-data")
	_, out, _ := call("data", "inspect", dir)
	if !strings.Contains(out, "corrupt images: 1") || !strings.Contains(out, bad) {
		t.Errorf("inspected:\n%s", out)
	}
	target := filepath.Join(t.TempDir(), "x-{0..}.tar")
	refused(t, 1, []string{"data", "pack", dir, target, "--strict-data"}, bad)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Symlink("b", filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(t.TempDir(), "run")
	refused(t, 1, training(dir, run, "--strict-data"), filepath.Join(dir, "b"))
	absent(t, run)
}

func TestPreview(t *testing.T) {
	dir, sheet := photos(t, 9, "a"), filepath.Join(t.TempDir(), "sheet.png")
	status, out, errs := call("data", "preview", "--data", dir, "--recipe", "cifar", "--size", "12", "--images", "5", "--out", sheet)
	if status != 0 || !strings.Contains(out, "5 images") {
		t.Fatalf("status %d, %s\n%s", status, out, errs)
	}
	content, err := os.ReadFile(sheet)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := png.Decode(bytes.NewReader(content)); err != nil || m.Bounds().Dx() < 300 {
		t.Errorf("the sheet: %v, %v", m.Bounds(), err)
	}
	refused(t, 2, []string{"data", "preview", "--data", dir}, "out: missing")
	refused(t, 1, []string{"data", "preview", "--data", dir, "--out", filepath.Join(dir, "no", "sheet.png")}, "no such file")
}

func TestDataCommandsNameTheFault(t *testing.T) {
	dir := photos(t, 3, "a")
	out := filepath.Join(t.TempDir(), "x-{000..}.tar")
	refused(t, 2, []string{"data"}, "mochi data inspect")
	refused(t, 2, []string{"data", "inspect", filepath.Join(dir, "none")}, "no such folder")
	refused(t, 2, []string{"data", "inspect", filepath.Join(dir, "none-{000..003}.tar")}, "do not exist")
	refused(t, 2, []string{"data", "pack", dir, "x.tar"}, "not of the form PREFIX-{000..}.tar")
	refused(t, 2, []string{"data", "pack", dir, out, "--split", "test"}, "no test split")
	refused(t, 2, []string{"data", "pack", dir, out, "--shard-size", "5Q"}, "--shard-size")
}

// inspect ends with a verdict whose counts add up, and fails when there is no rule for
// what was left out; training says the same in short.
func TestInspectIsTheTruth(t *testing.T) {
	dir := photos(t, 6, "cat", "dog")
	put(t, filepath.Join(dir, "@eaDir", "x", "SYNO.jpg"), []byte("x"))
	put(t, filepath.Join(dir, "cat", "a_mask.png"), picture(t, image.NewGray(image.Rect(0, 0, 9, 9)), 3, png.Encode))
	put(t, filepath.Join(dir, "notes.txt"), []byte("hello"))
	status, out, errs := call("data", "inspect", dir)
	for _, want := range []string{"verdict:", "trained on: 12 images, 2 classes", "evaluated on: nothing, since the data set has no test split", "left out: 1 file, thumbnails, trash", "a_mask.png", "notes.txt", "files found: 15 = 12 for training + 3 left out"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("status %d, %q is not said:\n%s%s", status, want, out, errs)
		}
	}
	put(t, filepath.Join(dir, "cat", "strange.q7"), []byte{1, 2, 3, 0, 5})
	status, out, errs = call("data", "inspect", dir, "--json")
	var r survey.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 1 || r.Files.Found != 16 || r.Files.Unruled() != 1 || !strings.Contains(errs, "no rule") || !strings.Contains(out, "strange.q7") {
		t.Errorf("status %d, %v, %+v\n%s", status, err, r.Files, errs)
	}
	if _, _, errs := call("data", "pack", dir, filepath.Join(t.TempDir(), "x-{0..}.tar")); !strings.Contains(errs, "strange.q7") || !strings.Contains(errs, "left out: 1 folder") {
		t.Errorf("pack does not say what is left out:\n%s", errs)
	}
}

// A run goes on with the data that it began with, from its folder and from a file.
func TestOtherDataAreRefused(t *testing.T) {
	dir, run := photos(t, 9, "cat", "dog"), filepath.Join(t.TempDir(), "run")
	trained(t, training(dir, run))
	latest := filepath.Join(run, "checkpoints", "latest.safetensors")
	other := filepath.Join(t.TempDir(), "other")
	trained(t, training(dir, other, "--resume", latest, "--steps", "4"))
	put(t, filepath.Join(dir, "cat", "z.png"), picture(t, image.NewGray(image.Rect(0, 0, 9, 9)), 3, png.Encode))
	refused(t, 2, training(dir, filepath.Join(t.TempDir(), "third"), "--resume", latest, "--steps", "4"), "is of other data", "use the same data")
	if status, _, errs := call(training(dir, run, "--steps", "5")...); status == 0 || !strings.Contains(errs, "other data") {
		t.Errorf("status %d\n%s", status, errs)
	}
	refused(t, 2, training(photos(t, 9, "only"), filepath.Join(t.TempDir(), "run"), "--oracle"), "oracle: needs labelled data of two classes or more", "one class")
}

// The page of data inspect is written whole, beside what is printed; where it cannot
// be, that is said before anything is read.
func TestInspectPage(t *testing.T) {
	dir, out := photos(t, 5, "a", "<script>"), filepath.Join(t.TempDir(), "data.html")
	refused(t, 2, []string{"data", "inspect", dir, "--html", filepath.Join(out, "missing", "x.html")}, "there is no folder")
	refused(t, 2, []string{"data", "inspect", dir, "--html", dir}, "is not a file")
	put(t, out, []byte("the old page"))
	status, printed, errs := call("data", "inspect", dir, "--html", out, "--json")
	page, err := os.ReadFile(out)
	var r survey.Report
	if status != 0 || err != nil || json.Unmarshal([]byte(printed), &r) != nil {
		t.Fatalf("status %d, %v: %s\n%s", status, err, printed, errs)
	}
	if !bytes.HasSuffix(page, []byte("</html>\n")) || !bytes.Contains(page, []byte(r.Digest)) || bytes.Contains(page, []byte("<script")) {
		t.Errorf("the page:\n%s", page)
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 1 {
		t.Errorf("beside the page: %v, %v", left, err)
	}
}
