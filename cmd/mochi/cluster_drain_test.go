package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

// mochi drain lets a replica go in order: it ends with 0, the others go on, and
// the result is that of a run that nobody left.
func TestDrain(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := breakable(t, data, 3)
	b.awaitStep(5)
	b.byName("r2").signal(syscall.SIGSTOP) // so that the job does not end meanwhile
	addr := "nats://" + b.coordinator.address()
	drain := start(t, "drain", "r1", "--join", addr, "--grace", "60s", "--json")
	b.awaitEvents("draining", "r1", 1)
	b.byName("r2").signal(syscall.SIGCONT)
	drain.mustEnd(0)
	var drained struct {
		Drained []string `json:"drained"`
	}
	if err := json.Unmarshal(drain.out.Bytes(), &drained); err != nil || len(drained.Drained) != 1 || !strings.HasPrefix(drained.Drained[0], "r1-") {
		t.Errorf("drained %q (%v)", drain.out.String(), err)
	}
	b.byName("r1").mustEnd(0)
	for _, lost := range b.events("replica lost") {
		if lost.Replica == "r1" {
			t.Errorf("it was lost: %+v", lost)
		}
	}
	start(t, "drain", "r1", "--join", addr, "--timeout", "20s").mustEnd(1) // there is none any more
	b.mustEndLike(whole, b.byName("r0"), b.byName("r2"))
}

// A replica whose coordinator is gone for too long ends with 75.
func TestOrphaned(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	b := breakable(t, data, 1)
	b.awaitStep(3)
	b.byName("r0").signal(syscall.SIGSTOP) // so that the job does not end meanwhile
	orphan := start(t, "replica", "--join", "nats://"+b.coordinator.address(), "--data", data, "--name", "orphan", "--orphaned", "2s")
	b.awaitEvents("replica joined", "orphan", 1)
	b.coordinator.kill()
	orphan.mustEnd(75)
	if !strings.Contains(orphan.errs.String(), "no coordinator was reached") {
		t.Errorf("it says %s", orphan.errs.String())
	}
}
