package clustertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/clustertest"
	"mochi/coordinator/protocol/config"
)

// TestLostReports: the report of a member that it has applied a step is lost, at every
// place of a job whose queue is spread, alone and together with trouble that ends the
// round just then. No bus does that while a connection lasts. The job goes on
// nonetheless, and does not begin one round after another in vain.
func TestLostReports(t *testing.T) {
	const most = 8 // rounds, with those that begin and end a job
	cfg := clustertest.Config{Steps: 6, Pace: 50 * time.Millisecond, Change: func(j *config.Job) {
		j.CheckpointEvery, j.QueueCopies = 3, "2"
	}}
	beside := map[string]func(w *clustertest.World){
		"nothing else":                func(*clustertest.World) {},
		"another dies":                func(w *clustertest.World) { w.Crash("b") },
		"another's connection breaks": func(w *clustertest.World) { w.BreakConnection("b") },
		"one joins":                   func(w *clustertest.World) { w.Start("d", clustertest.Engine{}) },
		"the coordinator dies": func(w *clustertest.World) {
			w.Crash(clustertest.Coordinator)
			w.StartCoordinator(nil)
		},
	}
	for name, trouble := range beside {
		for lost := range 12 {
			if fewer && lost > 0 {
				break
			}
			t.Run(fmt.Sprintf("%s/%d", name, lost), func(t *testing.T) {
				r := clustertest.Simulate(t, cfg, 200, func(w *clustertest.World) {
					start(w, "a", "b", "c")
					w.Next(clustertest.Coordinator, "get applied", lost, clustertest.Fault{Kind: clustertest.Lose})
					w.Reaches(int64(lost/3+1), time.Minute)
					// Before the trouble: the one who alone holds a state must be heard.
					w.Must(time.Minute, "the report is lost", func() bool {
						return slices.ContainsFunc(w.Points(), func(p clustertest.Point) bool {
							return p.Host == clustertest.Coordinator && p.What == "get applied" && p.N >= lost
						})
					})
					trouble(w)
					w.Ends(5 * time.Minute)
				})
				if n := r.Events["round"]; n > most {
					r.Violations = append(r.Violations, fmt.Sprintf("%d rounds", n))
				}
				if len(r.Violations) > 0 {
					t.Errorf("%s\n%s", strings.Join(r.Violations, "\n"), r.Trace)
				}
			})
		}
	}
}
