package main

import (
	"strings"
	"testing"
)

// A process dies by kill -9 at the moments that hurt most; each time the run
// ends with the samples, the digests and the state of an unbroken one.
func TestKilled(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)

	t.Run("before the first commit", func(t *testing.T) {
		b := breakable(t, data, 3)
		b.awaitEvents("round", "", 1)
		b.replicas[0].kill()
		b.mustEndLike(whole, b.replicas[1:]...)
	})
	// Two units of two groups: a third replica stands by until a member dies.
	t.Run("with two groups at once", func(t *testing.T) {
		b := breakable(t, data, 2, "--groups-at-once", "2")
		b.awaitStep(10)
		spare := b.join("spare")
		b.awaitStep(20)
		for _, e := range b.events("round") {
			if strings.Contains(e.Members, "spare") {
				t.Errorf("three members of two units: %q", e.Members)
			}
		}
		b.replicas[0].kill()
		b.awaitEvents("round", "spare", 1)
		b.mustEndLike(whole, b.replicas[1], spare)
	})
	// A member leaves while it is the one that gives, or takes, the state.
	t.Run("during recovery", func(t *testing.T) {
		b := breakable(t, data, 1)
		b.awaitStep(5)
		taker := b.join("taker")
		b.awaitEvents("round", "taker", 1)
		taker.kill()
		heir := b.join("heir")
		round := b.awaitEvents("round", "heir", 1)
		b.byName(strings.Fields(round.Members)[0]).kill() // rank 0 is the donor
		b.mustEndLike(whole, heir)
	})
	t.Run("two of three, just after a checkpoint's commit", func(t *testing.T) {
		b := breakable(t, data, 3, "--checkpoint-every", "10")
		b.awaitStep(20)
		members := strings.Fields(b.events("round")[0].Members)
		b.byName(members[0]).cmd.Process.Kill() // it uploads
		b.byName(members[2]).cmd.Process.Kill()
		b.mustEndLike(whole, b.byName(members[1]))
	})
	t.Run("all replicas", func(t *testing.T) {
		t.Parallel() // this one and the next mostly wait for those that held the state
		b := breakable(t, data, 2, "--checkpoint-every", "8")
		b.awaitStep(20)
		for _, r := range b.replicas {
			r.cmd.Process.Kill()
		}
		b.mustEndLike(whole, b.join("newcomer")) // one is enough, although two began
	})
	t.Run("everything", func(t *testing.T) {
		t.Parallel()
		b := breakable(t, data, 3, "--checkpoint-every", "7")
		b.awaitStep(20)
		for _, p := range append(b.replicas, b.coordinator) {
			p.cmd.Process.Kill()
		}
		b.coordinator.wait()
		b.restart("--min-replicas", "2")
		b.mustEndLike(whole, b.join("n0"), b.join("n1"))
	})
}
