package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Where the engine computes one BatchNorm group at a time, --groups-at-once
// changes the deal and nothing else, on any number of replicas, whether every
// one holds the queue or it is spread; and it may change when a run goes on.
func TestGroupsAtOnce(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	train := func(name string, args ...string) (out, said string) {
		t.Helper()
		out = filepath.Join(root, name)
		p := start(t, slices.Concat([]string{"train", "--data", data, "--out", out, "--engine", "gorgonia", "--pairs", "shard", "--steps", "12"}, tiny, args)...)
		p.mustEnd(0)
		return out, p.errs.String()
	}
	one, _ := train("one")
	for _, c := range []struct{ atOnce, replicas, copies string }{
		{"2", "1", "all"}, {"2", "2", "all"}, {"2", "2", "2"}, {"4", "1", "all"},
	} {
		out, said := train(strings.Join([]string{"of", c.atOnce, c.replicas, c.copies}, "-"),
			"--groups-at-once", c.atOnce, "--replicas", c.replicas, "--queue-copies", c.copies)
		mustEqual(t, one, out)
		checkSamples(t, out, 12, one)
		if !strings.Contains(said, "one BatchNorm group at a time") {
			t.Errorf("it does not say that the engine computes one at a time:\n%s", said)
		}
	}
	resumed, _ := train("resumed", "--groups-at-once", "2", "--steps", "5")
	_, said := train("resumed", "--groups-at-once", "4")
	if !strings.Contains(said, "settings changed from step 5 on: groups-at-once: 2 → 4") {
		t.Errorf("resumed with another number:\n%s", said)
	}
	mustEqual(t, one, resumed)

	// The last of equal flags counts.
	bad := func(want string, args ...string) {
		t.Helper()
		refused(t, 2, slices.Concat([]string{"train", "--data", data, "--out", filepath.Join(root, "bad")}, tiny, args), want)
	}
	bad("groups-at-once: the 4 groups of a batch (batch 16 / bn-group 4) are no multiple of 3; use 2 or 4", "--groups-at-once", "3")
	bad("groups-at-once: 0 is too small; at least 1", "--groups-at-once", "0")
	bad(`groups-at-once: "x" is not a whole number`, "--groups-at-once", "x")
	bad("replicas: is 3, but a batch of 16 has only 2 units of 2 groups (--groups-at-once) of 4 (--bn-group) to deal", "--groups-at-once", "2", "--replicas", "3")
	refused(t, 2, slices.Concat([]string{"coordinator", "--state", filepath.Join(root, "bad")}, tiny, []string{"--groups-at-once", "4", "--min-replicas", "2"}),
		"min-replicas: 2 is more than the units of work of a batch, 1 (batch 16 / bn-group 4 / groups-at-once 4)")
}
