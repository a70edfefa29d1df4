package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A replica may be there before the coordinator; one with other data is
// refused, and told why, while the job goes on; one more than there are groups
// stands by until a member is lost.
func TestJoining(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := &broken{T: t, data: data, state: filepath.Join(t.TempDir(), "cluster")}
	addr := freePort(t)
	b.replicas = append(b.replicas, joinCluster(t, data, addr, "early"))
	b.restartAt(addr)
	b.awaitStep(3)

	other := joinCluster(t, writeIDX(t, t.TempDir(), 96, 20), addr, "other")
	other.mustEnd(2)
	for _, want := range []string{"data training samples", "100", "96"} {
		if !strings.Contains(other.errs.String(), want) {
			t.Errorf("the refused replica does not say %q:\n%s", want, other.errs.String())
		}
	}
	b.replicas[0].signal(syscall.SIGSTOP) // so that the job does not end before they are ready
	few := start(t, "replica", "--join", "nats://"+addr, "--data", data, "--name", "few", "--threads", "1", "--classes", "0,1")
	for _, name := range []string{"r1", "r2", "r3"} {
		b.join(name)
	}
	b.await("three that are ready", func() bool { return b.inState("joining") == 3 })
	few.mustEnd(2)
	for _, want := range []string{"classes", "the coordinator's --classes"} {
		if !strings.Contains(few.errs.String(), want) {
			t.Errorf("the replica of two classes does not say %q:\n%s", want, few.errs.String())
		}
	}
	b.replicas[0].signal(syscall.SIGCONT)
	b.awaitEvents("round", "r3", 1)
	b.join("spare")
	b.awaitEvents("replica joined", "spare", 1)
	b.replicas[1].kill()
	b.awaitEvents("round", "spare", 1)
	b.mustEndLike(whole, append(b.replicas[:1:1], b.replicas[2:]...)...)
}

// A checkpoint that cannot be written is reported; the one before stays the
// latest, and training goes on.
func TestCheckpointNotWritten(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := &broken{T: t, data: data, state: filepath.Join(t.TempDir(), "cluster")}
	b.restartAt(freePort(t), "--checkpoint-every", "10", "--keep", "10")
	b.await("config.yaml", func() bool {
		_, err := os.Stat(filepath.Join(b.state, "config.yaml"))
		return err == nil
	})
	inTheWay := filepath.Join(b.state, "checkpoints", "step-00000020.safetensors", "folder")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	b.join("r0")
	failed := b.awaitEvents("checkpoint failed", "step-00000020", 1)
	if failed.Step != 20 {
		t.Errorf("the checkpoint of step %d failed, want 20", failed.Step)
	}
	b.mustEndLike(whole, b.replicas...)
	var at []int64
	for _, e := range b.events("checkpoint") {
		at = append(at, e.Step)
	}
	if len(at) != 5 || at[0] != 10 || at[1] != 30 {
		t.Errorf("checkpoints of steps %v, want 10, 30, 40, 50, 60", at)
	}
}
