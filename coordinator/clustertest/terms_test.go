package clustertest_test

import (
	"strings"
	"testing"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/clustertest"
)

// rebuild is --log rebuild.
func rebuild(c *coordinator.Config) { c.Rebuild = true }

// says waits until the coordinator says why the job stands.
func says(w *clustertest.World, part string) {
	w.Must(time.Minute, "it says "+part, func() bool {
		w.Sleep(100 * time.Millisecond)
		return strings.Contains(w.Status().Reason, part)
	})
}

// still says that no step is committed for a while.
func still(w *clustertest.World, d time.Duration) {
	before := w.Committed()
	w.Sleep(d)
	if after := w.Committed(); after != before {
		w.Errorf("step %d is committed, which nobody is to go on to", after)
	}
}

// lostLogs are histories of a log that is not whole, and of two coordinators.
func lostLogs() []history {
	job := clustertest.Config{Steps: 60}
	const old = "old"
	return []history{
		{"the end of the log is lost, and one member of two is gone too", job, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.Crash("a")
			w.LoseTail(17)
			w.StartCoordinator(nil)
			w.Reaches(40, time.Minute)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the end of the log is lost, and the replica that has it joined late", clustertest.Config{Steps: 120}, func(w *clustertest.World) {
			start(w, "a")
			w.Reaches(33, time.Minute)
			w.Start("b", clustertest.Engine{})
			w.Joins("b", time.Minute)
			w.Commits(2, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.Crash("a")
			w.LoseTail(17) // more than b has applied
			w.StartCoordinator(nil)
			w.Commits(20, time.Minute)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the end of the log is lost, and nobody has it", job, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.Crash("a")
			w.Crash("b")
			w.LoseTail(17)
			w.StartCoordinator(nil)
			still(w, 5*time.Minute) // whoever has it may come yet
			w.Start("c", clustertest.Engine{})
			says(w, "waiting for replicas that hold the commits since")
			w.Must(time.Minute, "it refuses", func() bool { return w.Of(clustertest.Coordinator) == nil })
			if w.Of("c") == nil {
				w.Errorf("the replica was sent home")
			}
			w.StartCoordinator(rebuild)
			w.Ends(time.Minute)
		}},
		{"a new host, and only a minority of the last round comes", job, func(w *clustertest.World) {
			start(w, "a", "b", "c")
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.Crash("a")
			w.Crash("b")
			w.EmptyFolder()
			w.StartCoordinator(nil)
			says(w, "1 of 3 members of its last round are here")
			still(w, 10*time.Minute)
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(rebuild)
			w.Reaches(40, time.Minute)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"a new host with other settings", job, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.EmptyFolder()
			w.StartCoordinator(func(c *coordinator.Config) { c.ConfigDigest = "another" })
			says(w, "with another configuration")
			still(w, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Reaches(40, time.Minute)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"a new host that is to begin afresh", job, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.EmptyFolder()
			w.StartCoordinator(func(c *coordinator.Config) { c.Afresh = true })
			w.Must(time.Minute, "the first step once more", func() bool { return w.Committed() == 1 })
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Ends(time.Minute)
		}},
		{"the coordinator is started on an old copy of its folder", job, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(13, time.Minute)
			w.CopyFolder(old)
			w.Reaches(33, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.RestoreFolder(old)
			w.StartCoordinator(nil)
			w.Reaches(40, time.Minute)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"an old copy is started beside the living coordinator, and one member of three comes to it", clustertest.Config{Steps: 200, Pace: 50 * time.Millisecond}, func(w *clustertest.World) {
			start(w, "a", "b", "c")
			for _, name := range []string{"a", "b", "c"} {
				w.Move(name, clustertest.Coordinator)
			}
			w.Reaches(13, time.Minute)
			w.CopyFolder(old)
			w.Crash(clustertest.Coordinator) // so that the copy's term is an earlier one
			w.StartCoordinator(nil)
			w.Commits(1, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Commits(20, time.Minute)
			w.ExpectEnd(old)
			w.StartCopy(old, nil)
			w.Move("c", old)
			w.Commits(20, time.Minute) // the others go on
			if n := w.CommittedOn(old); n > 13 {
				w.Errorf("the old copy has gone on to step %d", n)
			}
			w.Move("c", clustertest.Coordinator)
			w.Joins("c", time.Minute)
			w.Crash(old)
			w.NothingAgain()
			w.Ends(5 * time.Minute)
		}},
		{"two leaders on two copies of a folder, and all members go to the later one", clustertest.Config{Steps: 200, Pace: 50 * time.Millisecond}, func(w *clustertest.World) {
			start(w, "a", "b", "c")
			w.Reaches(13, time.Minute)
			w.CopyFolder(old)
			for _, name := range []string{"a", "b", "c"} {
				w.Move(name, clustertest.Coordinator)
			}
			w.Commits(20, time.Minute)
			w.StartCopy(old, nil)
			for _, name := range []string{"a", "b", "c"} {
				w.Move(name, old)
			}
			w.Must(time.Minute, "they go on with it", func() bool { return w.CommittedOn(old) > w.Committed()+5 })
			w.NothingAgain()
			w.Crash(clustertest.Coordinator)
			w.RestoreFolder(old)
			w.Must(5*time.Minute, "the end of the job", func() bool { return w.Of(old) == nil })
			w.AllGone(time.Minute)
		}},
		{"what a deposed leader says late is not heard", job, func(w *clustertest.World) {
			start(w, "a", "b", "c")
			for _, name := range []string{"a", "b", "c"} {
				w.Move(name, clustertest.Coordinator)
			}
			w.Reaches(13, time.Minute)
			w.CopyFolder(old)
			w.Pause(clustertest.Coordinator, time.Minute)
			w.StartCopy(old, nil)
			for _, name := range []string{"a", "b", "c"} {
				w.Move(name, old)
			}
			w.Must(2*time.Minute, "the end of the job", func() bool { return w.Of(old) == nil })
			w.NothingAgain()
			w.AllGone(time.Minute)
			w.Crash(clustertest.Coordinator)
		}},
		{"a checkpoint arrives while its coordinator is started again", clustertest.Config{Steps: 40, Pace: 100 * time.Millisecond}, func(w *clustertest.World) {
			start(w, "a", "b")
			// It takes less time than until the next one is due, for which whoever
			// is the first of the new round is asked: that would take its place.
			w.Uplink("a", 300*time.Millisecond)
			w.Uplink("b", 300*time.Millisecond)
			w.Reaches(6, time.Minute)
			if w.LatestCheckpoint() != 0 {
				w.Errorf("it has arrived already")
			}
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Must(2*time.Minute, "it is stored", func() bool { return w.LatestCheckpoint() == 5 })
			w.NothingAgain()
			w.Ends(10 * time.Minute)
		}},
		{"a checkpoint arrives while its coordinator is started again, and the next one is another replica's", clustertest.Config{Steps: 60, Pace: 100 * time.Millisecond}, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Uplink("a", time.Second) // more than until the next one is due
			w.Uplink("b", time.Second)
			w.Reaches(5, time.Minute)
			w.Must(time.Minute, "it is on its way", func() bool { return w.Uploader() != "" })
			from := w.Uploader()
			w.Crash(clustertest.Coordinator)
			w.Stall(from, clustertest.Coordinator, time.Second) // so that the other one is first
			w.StartCoordinator(nil)
			w.Must(2*time.Minute, "it is stored", func() bool { return w.LatestCheckpoint() == 5 })
			w.NothingAgain()
			w.Ends(10 * time.Minute)
		}},
		{"a damaged checkpoint arrives while its coordinator is started again", clustertest.Config{Steps: 40, Pace: 100 * time.Millisecond}, func(w *clustertest.World) {
			start(w, "a", "b")
			for _, name := range []string{"a", "b"} {
				w.Uplink(name, 2*time.Second)
				w.DamageUpload(name)
			}
			w.Reaches(7, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
			w.Must(2*time.Minute, "it is found", func() bool { return len(w.Events("checkpoint failed")) > 0 })
			w.Uplink("a", 0)
			w.Uplink("b", 0)
			w.Ends(10 * time.Minute)
		}},
		{"the last checkpoint finds the disk full again and again", clustertest.Config{Steps: 20}, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Uplink("a", time.Second)
			w.Uplink("b", time.Second)
			w.Reaches(20, time.Minute)
			w.FillDisk(10 * time.Minute)
			w.Ends(15 * time.Minute)
			if n := len(w.Events("disk full")); n != 1 {
				w.Errorf("people were told %d times that the disk is full", n)
			}
		}},
		{"the coordinator is started while the disk is full", clustertest.Config{Steps: 30}, func(w *clustertest.World) {
			start(w, "a", "b")
			w.Reaches(7, time.Minute)
			w.Crash(clustertest.Coordinator)
			w.FillDisk(5 * time.Minute)
			w.StartCoordinator(nil)
			w.Commits(1, 7*time.Minute)
			w.NothingAgain()
			w.Ends(10 * time.Minute)
		}},
	}
}

func TestLostLogs(t *testing.T) { play(t, lostLogs()) }
