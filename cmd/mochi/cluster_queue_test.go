package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol"
)

// A queue whose shards are spread over replicas, two copies of each, gives the
// losses, digests and checkpoint of one that every replica holds whole, to the
// bit, for any number of replicas; and a run goes on from its checkpoint with
// any of them. So does LARS.
func TestSpreadQueueAgrees(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	train := func(out, copies string, replicas, n int, extra ...string) string {
		args := append([]string{"train", "--data", data, "--out", out, "--replicas", fmt.Sprint(replicas), "--steps", fmt.Sprint(n)}, tiny...)
		mochi(t, append(append(args, "--queue-shards", "7", "--pairs", "shard", "--queue-copies", copies), extra...)...)
		return out
	}
	whole := train(filepath.Join(root, "whole"), "all", 1, 20)
	want := steps(t, whole)
	for _, p := range []int{1, 2, 3, 4} {
		out := train(filepath.Join(root, fmt.Sprint(p)), "2", p, 20)
		mustEqual(t, whole, out)
		for i, l := range steps(t, out) {
			if l.Digest != want[i].Digest || l.Loss != want[i].Loss {
				t.Fatalf("%d replicas, step %d: %+v, want %+v", p, i+1, l, want[i])
			}
		}
	}
	// Parts of the way each: spread over 3, 3 copies on 4, whole on 2.
	out := filepath.Join(root, "resumed")
	train(out, "2", 3, 6)
	train(out, "3", 4, 13)
	train(out, "all", 2, 20)
	mustEqual(t, whole, out)

	oracle := train(filepath.Join(root, "oracle"), "all", 2, 8, "--oracle")
	mustEqual(t, oracle, train(filepath.Join(root, "spread oracle"), "2", 3, 8, "--oracle"))

	lars := []string{"--optimizer", "lars", "--lr", "1", "--lr-warmup", "1"}
	one := train(filepath.Join(root, "lars"), "all", 1, 8, lars...)
	mustEqual(t, one, train(filepath.Join(root, "spread lars"), "2", 3, 8, lars...))
	if l := steps(t, one); l[0].LR != 0 || !(l[1].LR > 0) || !(l[2].LR > l[1].LR) {
		t.Errorf("learning rates %g, %g, %g while warming up", l[0].LR, l[1].LR, l[2].LR)
	}
}

// Acceptance of the spread queue: a member of three is killed and another
// joins, later one more is killed, and the queue, like everything else, is
// that of a run nothing happened to. MOCHI_LONG=1 takes the 200 steps.
func TestSpreadQueueSurvivesKills(t *testing.T) {
	n := int64(90)
	if os.Getenv("MOCHI_LONG") != "" {
		n = 200
	}
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	whole, state := filepath.Join(root, "whole"), filepath.Join(root, "cluster")
	spread := []string{"--queue-shards", "7", "--queue-copies", "2", "--steps", fmt.Sprint(n)}
	mochi(t, append(append([]string{"train", "--data", data, "--out", whole}, tiny...), spread...)...)

	c, rs := cluster(t, data, state, 3, append(spread, "--checkpoint-every", "20")...)
	awaitStep(t, state, n/6, c)
	var status protocol.Status
	if err := json.Unmarshal([]byte(mochi(t, "status", "--join", "nats://"+c.address(), "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if q := status.Queue; q.Copies != "2" || len(q.Shards) != 7 || q.Shards[3].Owner == "" || len(q.Shards[3].Copies) != 1 || q.Repairs != 0 {
		t.Errorf("status of the queue: %+v", q)
	}
	text := mochi(t, "status", "--join", "nats://"+c.address())
	for _, r := range status.Replicas {
		if r.Device == "" || r.Engine == "onednn" && r.Versions["onednn"] == "" {
			t.Errorf("status of a replica: %+v", r)
		}
		if line := engines.WithVersions(r.Device, r.Versions); strings.Count(text, line+"\n") != len(status.Replicas) {
			t.Errorf("status does not show %q for every replica:\n%s", line, text)
		}
	}
	rs[1].cmd.Process.Kill()
	at := int64(len(steps(t, state)))
	awaitStep(t, state, at+n/6, c)
	joiner := joinCluster(t, data, c.address(), "joiner")
	awaitStep(t, state, at+n/2, c)
	rs[0].cmd.Process.Kill()
	c.mustEnd(0)
	rs[2].mustEnd(0)
	joiner.mustEnd(0)
	mustEqual(t, whole, state)
	checkSamples(t, state, n, whole)
	want := steps(t, whole)
	worlds := map[int]bool{}
	for i, l := range steps(t, state) {
		worlds[l.World] = true
		if l.Digest != want[i].Digest || l.Loss != want[i].Loss {
			t.Fatalf("step %d: %+v, want %+v", i+1, l, want[i])
		}
	}
	if !worlds[2] || !worlds[3] {
		t.Errorf("world sizes seen: %v, want 2 and 3", worlds)
	}
}
