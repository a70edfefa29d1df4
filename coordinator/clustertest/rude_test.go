package clustertest_test

import (
	"testing"
	"time"

	"mochi/coordinator"
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
		{name: "a state that nobody has, at the start", cfg: clustertest.Config{Steps: 10}, run: func(w *clustertest.World) {
			start(w, "a")
			w.Must(time.Minute, "a says Hello", func() bool { return len(w.Status().Replicas) > 0 })
			w.Rude("x", claims(1_000_000))
			w.Start("b", clustertest.Engine{})
			w.Ends(2 * time.Minute)
		}},
		{name: "a state that nobody has, later", cfg: clustertest.Config{Steps: 30}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(5, time.Minute)
			w.Rude("x", claims(1_000_000))
			w.Reaches(10, 20*time.Second)
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Reaches(15, 20*time.Second)
			w.NothingAgain()
			w.Ends(2 * time.Minute)
		}},
		{name: "commits of a later leader, after the log", cfg: clustertest.Config{Steps: 30}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(5, time.Minute)
			w.Forges("x", w.Committed()+5, 10)
			w.Reaches(20, time.Minute)
			w.Ends(2 * time.Minute)
			w.NothingAgain()
			w.Never("commits recalled", "commits not recalled")
		}},
		{name: "commits of a later leader, in place of the log's", cfg: clustertest.Config{Steps: 30}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(8, time.Minute)
			w.Crash(clustertest.Coordinator) // whoever comes first is heard first
			w.Crash("a")
			w.Forges("x", 4, 4)
			w.StartCoordinator(nil)
			w.Start("a", clustertest.Engine{})
			w.Ends(2 * time.Minute)
			w.Never("commits recalled", "rolled back")
		}},
		{name: "commits of a later leader, and a log that lost its end", cfg: clustertest.Config{Steps: 30}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(12, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.LoseTail(5)
			w.Forges("x", w.Committed()+1, 20)
			w.StartCoordinator(nil)
			w.Ends(2 * time.Minute)
			w.NothingAgain()
		}},
		{name: "an empty folder and other keys", cfg: clustertest.Config{Steps: 30}, run: func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(12, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.EmptyFolder()
			w.StartCoordinator(func(c *coordinator.Config) { c.Key = []byte("another one") })
			w.Ends(2 * time.Minute)
			w.NothingAgain()
		}},
	})
}

// claims a state that was never there.
func claims(step int64) func(*protocol.Hello) {
	return func(h *protocol.Hello) {
		h.State, h.Head = &protocol.Position{Step: step, Digest: "none"}, nil
	}
}
