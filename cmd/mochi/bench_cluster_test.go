package main

import (
	"encoding/json"
	"testing"
)

// Stand-ins are taken for replicas: they make steps, nobody is lost, and the
// coordinator's part is measured.
func TestBenchCluster(t *testing.T) {
	var r clusterResult
	text := mochi(t, "bench", "cluster", "--replicas", "3", "--groups", "2", "--rate", "20", "--seconds", "2", "--json")
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Replicas != 3 || r.Groups != 6 || r.Steps == 0 || r.RSSMB == 0 || r.CommitP50 <= 0 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
}
