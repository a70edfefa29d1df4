package clustertest_test

import (
	"testing"
	"time"

	"mochi/coordinator/clustertest"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// every makes the job store a checkpoint every so many steps.
func every(n int64) func(*config.Job) { return func(j *config.Job) { j.CheckpointEvery = n } }

// Members that have a token, and mean no good.
func TestRude(t *testing.T) {
	play(t, []history{
		{name: "checkpoints that nobody asked for", cfg: clustertest.Config{Steps: 30, Change: every(5)}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Uplink("a", 100*time.Millisecond) // the honest upload takes a second,
			w.Uplink("b", 100*time.Millisecond)
			w.Reaches(2, time.Minute)
			refused := 0
			w.Rude("x", func(*protocol.Hello) {}).Uploads(5, &refused) // and is there when this one comes
			w.Reaches(20, time.Minute)
			w.Crash(clustertest.Coordinator) // the next one does not know whom it was asked of
			w.StartCoordinator(nil)
			w.Ends(2 * time.Minute)
			w.Never("checkpoint failed")
			if refused == 0 {
				w.Errorf("not one upload was refused")
			}
		}},
	})
}
