package main

import (
	"encoding/json"
	"path/filepath"
	"syscall"
	"testing"
)

// A member hangs: the others go on without it, and when it wakes it comes
// back with their state.
func TestHungMember(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := breakable(t, data, 3)
	b.awaitStep(5)
	hung := b.byName("r1")
	hung.signal(syscall.SIGSTOP)
	b.awaitEvents("replica lost", "r1", 1)
	b.awaitStep(b.last() + 1)
	hung.signal(syscall.SIGCONT)
	b.awaitEvents("replica joined", "r1", 2)
	b.mustEndLike(whole, b.replicas...)
}

// SIGTERM of every replica leaves a checkpoint of the last commit, from which
// a newcomer goes on at once; Ctrl-C at the coordinator sends all home.
func TestAllLeaveThenCoordinatorStops(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := breakable(t, data, 3)
	b.awaitStep(5)
	for _, r := range b.replicas {
		r.signal(syscall.SIGTERM)
	}
	for _, r := range b.replicas {
		r.mustEnd(0)
	}
	left := b.last()
	newcomer := b.join("newcomer")
	b.awaitStep(left + 2)
	if rolled := b.events("rolled back"); len(rolled) > 0 {
		t.Errorf("steps were run again: %+v", rolled)
	}

	b.coordinator.signal(syscall.SIGINT)
	b.coordinator.mustEnd(130)
	newcomer.mustEnd(0)
	var stored struct {
		Step int64 `json:"step"`
	}
	out := mochi(t, "inspect", filepath.Join(b.state, "checkpoints", "latest.safetensors"), "--json")
	if err := json.Unmarshal([]byte(out), &stored); err != nil || stored.Step != b.last() {
		t.Errorf("the checkpoint is of step %d, the last commit is %d (%v)", stored.Step, b.last(), err)
	}
	b.restart()
	b.mustEndLike(whole, b.join("again"))
}
