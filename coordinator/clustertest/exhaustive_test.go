package clustertest_test

import (
	"strings"
	"testing"
	"time"

	"mochi/coordinator/clustertest"
	"mochi/coordinator/protocol/config"
)

// The scenes whose every point is tried: three members from the start, and one
// in which another joins while one leaves.
var scenes = []struct {
	name string
	cfg  clustertest.Config
	run  func(w *clustertest.World)
}{
	{"three members", scene, func(w *clustertest.World) {
		start(w, "a", "b", "c")
	}},
	{"one joins and one leaves", scene, func(w *clustertest.World) {
		start(w, "a", "b")
		w.Until(5*time.Second, func() bool { return w.Committed() >= 1 })
		w.Start("c", clustertest.Engine{})
		w.Leave("b")
	}},
	{"two members with a queue in parts, and one stands by", inParts, func(w *clustertest.World) {
		start(w, "a", "b", "c")
	}},
}

// scene is a job of two steps with a checkpoint after the first and the last.
var scene = clustertest.Config{Steps: 2, Pace: 50 * time.Millisecond, Change: clustertest.EveryStep}

// inParts is such a job for two members, each of which holds some of the queue.
var inParts = clustertest.Config{Steps: 2, Pace: 50 * time.Millisecond, Change: func(j *config.Job) {
	j.CheckpointEvery, j.QueueCopies, j.MaxReplicas = 1, "1", 2
}}

// kinds of faults that are tried at every point.
var kinds = []clustertest.Fault{
	{Kind: clustertest.Crash},
	{Kind: clustertest.Pause, For: 12 * time.Second},
	{Kind: clustertest.Break},
	{Kind: clustertest.Slow, For: time.Minute},
	{Kind: clustertest.Fail},
	{Kind: clustertest.Lose},
}

// At every point of a small job, in every role, everything that can go wrong goes
// wrong once; the job comes to its end without loss. A failure is seen again with
// -run 'Exhaustive/scene/host_what_#n/kind'.
func TestExhaustive(t *testing.T) {
	runs, failed := 0, map[string]bool{}
	for i, s := range scenes {
		if fewer && i == 1 {
			continue
		}
		var points []clustertest.Point
		quiet := clustertest.Simulate(t, s.cfg, 0, func(w *clustertest.World) {
			s.run(w)
			w.Ends(time.Minute)
			points = w.Points()
		})
		if len(quiet.Violations) > 0 {
			t.Fatalf("%s, and nothing goes wrong: %v", s.name, quiet.Violations)
		}
		t.Run(s.name, func(t *testing.T) {
			for _, p := range points {
				if skip(p) || fewer && p.N > 0 {
					continue
				}
				for _, f := range kinds {
					if f.Kind == clustertest.Fail && !failing[p.What] {
						continue // it cannot fail
					}
					if f.Kind == clustertest.Lose && !strings.HasPrefix(p.What, "get ") {
						continue // it is no message that comes
					}
					runs++
					r := clustertest.Simulate(t, with(s.cfg, p, f), 120, func(w *clustertest.World) {
						if f.Kind == clustertest.Fail {
							w.ExpectEnd(p.Host)
						}
						s.run(w)
						recovers(w, p.Host)
					})
					key := p.Host + " " + p.What + " " + f.Kind.String()
					if len(r.Violations) > 0 && openFaults[key] {
						failed[key] = true
						continue
					}
					if len(r.Violations) > 0 {
						t.Errorf("%v, %v: %s\n%s", p, f, strings.Join(r.Violations, "\n"), r.Trace)
					}
				}
			}
		})
	}
	for key := range openFaults {
		if !failed[key] {
			t.Errorf("%s passes: take it off openFaults", key)
		}
	}
	t.Logf("%d histories", runs)
}

// failing are the points at which what is done can fail.
var failing = map[string]bool{
	"append": true, "save round": true, "save data": true, "store": true, "upload": true, "download": true,
	"ring": true, "engine": true, "keys": true, "query": true, "backward": true, "update": true,
}

// skip leaves out points that are like another one: after the third time that a
// host does the same.
func skip(p clustertest.Point) bool {
	return p.N > 2 && (p.What == "keys" || p.What == "query" || p.What == "backward")
}

func with(cfg clustertest.Config, p clustertest.Point, f clustertest.Fault) clustertest.Config {
	cfg.Plan = map[clustertest.Point]clustertest.Fault{p: f}
	return cfg
}

// recovers starts again what a fault has ended, and waits for the end.
func recovers(w *clustertest.World, host string) {
	w.Sleep(5 * time.Second)
	if w.Unfinished() && w.Of(clustertest.Coordinator) == nil {
		w.StartCoordinator(nil)
	}
	if w.Unfinished() && host != clustertest.Coordinator && w.Of(host) == nil {
		w.Start(host, clustertest.Engine{})
	}
	w.Must(5*time.Minute, "the last step", func() bool { return !w.Unfinished() })
	w.Must(2*time.Hour, "the end of every process", func() bool { return w.Of(clustertest.Coordinator) == nil && len(w.Replicas()) == 0 })
	w.Done()
}
