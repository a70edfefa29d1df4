package main

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/replica/data"
	"mochi/replica/data/datatest"
)

// Of random data sets whose truth is known, inspect, pack, what was packed and the
// evaluation say the same, which is the truth.
func TestRandomDataAgree(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(base, "cache"))
	datatest.Each(t, base, 20, func(w datatest.World, dir string) {
		var sources []string
		for _, s := range w.Sources {
			sources = append(sources, "--data", s)
		}
		agree(t, w, sources, filepath.Join(dir, "train-{000..}.tar"))
	})
}

// truthOf are the samples of a truth, or of a split: content → class.
func truthOf(list []datatest.Sample) map[string][]string {
	all := make(map[string][]string)
	for _, s := range list {
		all[s.Content] = append(all[s.Content], s.Class)
	}
	return sortedIn(all)
}

func sortedIn(all map[string][]string) map[string][]string { // links are the same image twice
	for _, classes := range all {
		slices.Sort(classes)
	}
	return all
}

func packedOf(t *testing.T, d data.Dataset) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	if d == nil {
		return all
	}
	decoder := data.NewDecoder()
	for i := range d.Len() {
		content, err := d.(data.Encoded).Content(i, decoder)
		if err != nil {
			t.Fatal(err)
		}
		class := ""
		if l := d.Label(i); l >= 0 {
			class = d.(interface{ ClassName(int) string }).ClassName(int(l))
		}
		all[string(content)] = append(all[string(content)], class)
	}
	return sortedIn(all)
}

func agree(t *testing.T, w datatest.World, sources []string, shards string) {
	t.Helper()
	trained, classes, tested := map[string]int{}, 0, 0
	for _, s := range w.Train {
		if trained[s.Class]++; s.Class != "" && trained[s.Class] == 1 {
			classes++
		}
	}
	for _, s := range w.Test {
		if s.Class != "" {
			tested++
		}
	}
	seen := surveyed(t, sources...)
	if seen.Train.Images != len(w.Train) || seen.Train.Unlabeled != trained[""] || seen.Classes != classes || seen.Files.Found != w.Found || (seen.Test == nil) != (len(w.Test) == 0) {
		t.Errorf("inspect: %+v", seen)
	}
	left := 0
	for _, n := range seen.LeftOut {
		left += n
	}
	if seen.Found != w.Found || left != w.Left {
		t.Errorf("inspect: %d found, %d left out; want %d, %d", seen.Found, left, w.Found, w.Left)
	}
	for _, c := range seen.ByClass {
		if c.Train != trained[c.Name] {
			t.Errorf("inspect: %d training images of class %s, want %d", c.Train, c.Name, trained[c.Name])
		}
	}
	status, out, errs := call(append([]string{"data", "pack", "--out", shards, "--json"}, sources...)...)
	var packed packResult
	if err := json.Unmarshal([]byte(out), &packed); err != nil || status != 0 || packed.Images != len(w.Train)+len(w.Test) || len(packed.LeftOut) > 0 {
		t.Fatalf("pack: status %d, %+v\n%s", status, packed, errs)
	}
	set, err := data.Open(shards)
	if err != nil {
		t.Fatal(err)
	}
	for name, split := range map[string]struct {
		d     data.Dataset
		truth []datatest.Sample
	}{"training": {set.Train, w.Train}, "test": {set.Test, w.Test}} {
		if got, want := packedOf(t, split.d), truthOf(split.truth); !maps.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("packed %s split: %v, want %v", name, got, want)
		}
	}
	again := surveyed(t, shards)
	if !slices.Equal(seen.ByClass, again.ByClass) || seen.Leaked != again.Leaked || seen.Train.Unlabeled != again.Train.Unlabeled {
		t.Errorf("packed: %+v, want %+v", again, seen)
	}
	figure := func(data ...string) string {
		status, out, errs := call(append([]string{"eval", "knn", "--checkpoint", "random:resnet8", "--image-size", "8", "--k", "3", "--json"}, data...)...)
		if good := classes > 1 && tested > 0; good != (status == 0) {
			t.Errorf("evaluation: status %d of %d classes and %d test images\n%s", status, classes, tested, errs)
		}
		var r struct{ Train, Test, Unlabeled int }
		if status == 0 && (json.Unmarshal([]byte(out), &r) != nil || r.Train != len(w.Train)-trained[""] || r.Test != len(w.Test) || r.Unlabeled != len(w.Test)-tested) {
			t.Errorf("evaluation: %s; want %d training and %d test images", out, len(w.Train)-trained[""], len(w.Test))
		}
		out, _, _ = strings.Cut(out, `"leaked_paths"`)
		return out
	}
	if a, b := figure(sources...), figure("--data", shards); a != b {
		t.Errorf("evaluation: %s, and of what was packed %s", a, b)
	}
}
