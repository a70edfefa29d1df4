package clustertest_test

import (
	"testing"
	"time"

	"mochi/coordinator/clustertest"
)

// standing starts a group of three coordinators, and replicas.
func standing(w *clustertest.World, names ...string) {
	w.Group(3)
	start(w, names...)
}

// leaderChanges are histories of three coordinators with a replicated log.
func leaderChanges() []history {
	const next = 12 * time.Second // from the fault to the next commit, at worst
	job := clustertest.Config{Steps: 60, Pace: 50 * time.Millisecond}
	return []history{
		{"three coordinators, and nothing happens", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the leader is killed", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			for i := range int64(3) {
				w.Reaches(13*(i+1), time.Minute)
				lost := w.Leader()
				w.Crash(lost)
				w.Commits(1, next)
				w.StartMember(lost)
			}
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the leader stands still for half a minute", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			w.Reaches(13, time.Minute)
			w.Pause(clustertest.Coordinator, 30*time.Second)
			w.Commits(1, next)
			w.NothingAgain()
			w.Sleep(40 * time.Second)
			w.Ends(time.Minute)
		}},
		{"the leader stands still, and a newcomer finds the next one first", clustertest.Config{Seed: 2, Steps: 60, Pace: 50 * time.Millisecond}, func(w *clustertest.World) {
			standing(w, "a", "b")
			w.Reaches(13, time.Minute)
			w.Pause(clustertest.Coordinator, 10*time.Second)
			w.Start("d", clustertest.Engine{})
			w.Commits(1, next)
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the leader is cut off from the other coordinators", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			w.Reaches(13, time.Minute)
			lost := w.Leader()
			for _, host := range w.Members() {
				if host != lost {
					w.Partition(lost, host)
				}
			}
			w.Commits(1, next)
			for _, host := range w.Members() {
				if host != lost {
					w.Rejoin(lost, host)
				}
			}
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the leader is cut off from everybody", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			w.Reaches(13, time.Minute)
			lost := w.Leader()
			others := append([]string{"a", "b", "c"}, w.Members()...)
			for _, host := range others {
				if host != lost {
					w.Partition(lost, host)
				}
			}
			w.Commits(1, next)
			w.Sleep(20 * time.Second)
			for _, host := range others {
				if host != lost {
					w.Rejoin(lost, host)
				}
			}
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"a deposed leader goes on beside its successor", job, func(w *clustertest.World) {
			standing(w, "a", "b", "c")
			for i := range int64(5) {
				w.Reaches(8*(i+1), time.Minute)
				w.Depose()
				w.Commits(1, next)
			}
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
		{"the leader is lost after it has sent everybody home, while the others fetch the last checkpoint", clustertest.Config{Steps: 20}, func(w *clustertest.World) {
			standing(w, "a", "b")
			w.Reaches(7, time.Minute)
			for _, host := range w.Members() {
				w.Uplink(host, time.Second)
			}
			lost := w.Leader()
			w.Next(lost, "event done", 0, clustertest.Fault{Kind: clustertest.Crash})
			w.Must(5*time.Minute, "everybody has gone home", func() bool { return len(w.Replicas()) == 0 })
			w.Must(time.Minute, "the leader is lost", func() bool { return w.Leader() != lost })
			w.NothingAgain()
			w.Ends(time.Minute)
		}},
	}
}

func TestLeaderChanges(t *testing.T) { play(t, leaderChanges()) }
