package quorum

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/commitlog"
	"mochi/coordinator/protocol"
	"mochi/coordinator/wal"
)

// BenchmarkFailover kills the leader b.N times and says how long it takes until another
// one leads, at the heartbeat that is the default: over connections of this machine and
// its disk, and on virtual time, where nothing but raft's timers takes any.
//
//	go test ./coordinator/quorum -run - -bench Failover -benchtime 50x
func BenchmarkFailover(b *testing.B) {
	measure := func(b *testing.B, g *group) {
		var took []time.Duration
		for range b.N {
			g.commit("g")
			n, _ := g.lead()
			var gone atomic.Bool
			start := time.Now()
			go func() { _ = n.Close(); gone.Store(true) }() // its connections end at once, as a killed process's do
			g.mu.Lock()
			delete(g.nodes, n.o.Name)
			g.mu.Unlock()
			<-n.ctx.Done()
			g.lead()
			took = append(took, time.Since(start))
			g.eventually("it is gone", func() bool { return gone.Load() })
			if err := g.start(n.o.Name); err != nil {
				b.Fatal(err)
			}
			c := g.commit("g")
			g.eventually("it follows", func() bool { return g.node(n.o.Name).Settings().Step == c.Step })
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds(), "s-median")
		b.ReportMetric(took[len(took)-1].Seconds(), "s-max")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("machine", func(b *testing.B) {
		g := newGroup(b, 3)
		g.beat = time.Second
		g.startAll()
		measure(b, g)
	})
}

// TestFailoverTakes says how long it takes on virtual time until another leads, and that
// it is no longer than promised.
func TestFailoverTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		w.startAll()
		var took []time.Duration
		for range 60 {
			c := w.commit("g")
			n, _ := w.lead()
			start := time.Now()
			w.crash(n.o.Name)
			down := time.Since(start) // closing is not what is measured
			start = time.Now().Add(-min(down, 10*time.Millisecond))
			w.lead()
			took = append(took, time.Since(start))
			if err := w.start(n.o.Name); err != nil {
				t.Fatal(err)
			}
			d := w.commit("g")
			if d.Step != c.Step+1 {
				t.Fatalf("commit %d after %d", d.Step, c.Step)
			}
			w.eventually("it follows", func() bool { return w.node(n.o.Name).Settings().Step == d.Step })
		}
		slices.Sort(took)
		t.Logf("%d times: median %v, 90 %% %v, worst %v", len(took), took[len(took)/2], took[len(took)*9/10], took[len(took)-1])
		if took[len(took)/2] > 4*time.Second || took[len(took)-1] > 12*time.Second {
			t.Error("longer than promised")
		}
		w.end()
	})
}

// BenchmarkAppend appends commits of 8 groups to the log of one coordinator and to that
// of three, on this machine's disk.
//
//	go test ./coordinator/quorum -run - -bench Append -benchtime 500x
func BenchmarkAppend(b *testing.B) {
	commitOf := func(before protocol.Commit) protocol.Commit {
		c := next(before, "g")
		for g := range 8 {
			c.Groups = append(c.Groups, protocol.GroupReport{Group: g})
		}
		return c
	}
	measure := func(b *testing.B, l coordinator.Log) {
		var took []time.Duration
		var c protocol.Commit
		for range b.N {
			c = commitOf(c)
			start := time.Now()
			if err := l.Append(context.Background(), c); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
	}
	b.Run("one", func(b *testing.B) {
		l, _, err := commitlog.Open(wal.Dir(filepath.Join(b.TempDir(), "commits")), commitlog.Options{})
		if err != nil {
			b.Fatal(err)
		}
		measure(b, l)
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("three", func(b *testing.B) {
		g := newGroup(b, 3)
		g.beat = time.Second
		g.startAll()
		_, l := g.lead()
		measure(b, l)
	})
}
