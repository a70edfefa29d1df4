package quorum

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator"
)

// TestOneLeads starts a group: one of its members leads, all hear of what it logs, and
// another leads when it is gone.
func TestOneLeads(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	n, l := g.lead()
	for name, other := range g.nodes {
		if other == n {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*beat)
		if _, err := other.Lead(ctx); !l.over() && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s leads too: %v", name, err)
		}
		cancel()
	}
	first := g.commit("g")
	g.do(func(ctx context.Context, l *Leadership) error {
		l.Line("log", []byte("one"))
		l.Line("log", []byte("two"))
		l.Stored(Checkpoint{Name: "c1", Step: 1, Size: 7, Digest: "d"})
		return errors.Join(l.Flush(ctx), l.SaveConfig(ctx, "cfg"))
	})
	for name, f := range g.followers {
		g.eventually("two lines at "+name, func() bool { return slices.Equal(f.all("log"), []string{"one", "two"}) })
		g.eventually("the rest at "+name, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.config == "cfg" && len(f.stored) > 0
		})
	}
	leader, _ := g.lead()
	g.kill(leader.o.Name)
	after := g.commit("g")
	if after.Step != first.Step+1 || after.Chain != after.Link(first.Chain) {
		t.Errorf("%+v does not follow %+v", after, first)
	}
	g.do(func(ctx context.Context, l *Leadership) error {
		return l.Over(ctx, Outcome{Status: 3, Reason: "enough"})
	})
	if err := g.start(leader.o.Name); err != nil {
		t.Fatal(err)
	}
	for name, f := range g.followers {
		g.eventually("the end at "+name, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.over) == 1 && f.over[0].Status == 3
		})
	}
}

// TestResign hands the leadership over; what the old leader writes then is refused.
func TestResign(t *testing.T) {
	g := newGroup(t, 3)
	g.startAll()
	c := g.commit("g")
	var old *Leadership
	n := g.do(func(ctx context.Context, l *Leadership) error { old = l; return l.Resign(ctx) })
	select {
	case <-old.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it still leads")
	}
	if err := old.Append(t.Context(), next(c, "x")); !errors.Is(err, coordinator.ErrFenced) {
		t.Errorf("append after the leadership: %v", err)
	}
	if _, _, err := old.Last(t.Context()); !errors.Is(err, coordinator.ErrFenced) {
		t.Errorf("read after the leadership: %v", err)
	}
	if err := old.Over(t.Context(), Outcome{}); !errors.Is(err, coordinator.ErrFenced) {
		t.Errorf("over after the leadership: %v", err)
	}
	g.kill(n.o.Name) // it has nothing to do with it any more
	if d := g.commit("g"); d.Step != c.Step+1 {
		t.Errorf("step %d after %d", d.Step, c.Step)
	}
}

// TestCutOff cuts the leader off from the others, in each direction and in both: another
// one leads, what the old one appends is in the history once or not at all, and it
// follows when the network is back.
func TestCutOff(t *testing.T) {
	for name, cut := range map[string]func(g *group, leader, other string){
		"both ways":         func(g *group, leader, other string) { g.cut(leader, other); g.cut(other, leader) },
		"it is not heard":   func(g *group, leader, other string) { g.cut(leader, other) },
		"it does not hear":  func(g *group, leader, other string) { g.cut(other, leader) },
		"both ways, of one": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGroup(t, 3)
			g.startAll()
			c := g.commit("g")
			n, l := g.lead()
			self := n.o.Name
			for i, m := range g.members {
				switch {
				case m.Name == self:
				case cut != nil:
					cut(g, self, m.Name)
				case i == slices.IndexFunc(g.members, func(m Member) bool { return m.Name != self }):
					g.cut(self, m.Name)
					g.cut(m.Name, self)
				}
			}
			mine := next(c, "old")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := l.Append(ctx, mine)
			if cut != nil && !errors.Is(err, coordinator.ErrFenced) {
				t.Fatalf("append of a leader that is cut off: %v", err)
			}
			if cut == nil && err != nil && !errors.Is(err, coordinator.ErrFenced) {
				t.Fatal(err)
			}
			d := g.commit("new")
			g.heal()
			e := g.commit("later")
			for _, m := range g.members {
				g.eventually("all at "+m.Name, func() bool { return g.node(m.Name).Settings().Step == e.Step })
			}
			_, l = g.lead()
			all, err := l.After(t.Context(), 0)
			if err != nil || consecutive(all) != nil || int64(len(all)) != e.Step {
				t.Fatalf("%d commits: %v", len(all), err)
			}
			var old int
			for _, c := range all {
				if c.Digest == mine.Digest {
					old++
				}
			}
			if old > 1 || old == 1 && d.Step != c.Step+2 || old == 0 && d.Step != c.Step+1 {
				t.Errorf("the commit of the leader that was cut off is there %d times, the next one is of step %d", old, d.Step)
			}
		})
	}
}

// TestEmptied empties the folder of one member: it is filled from the others, lines that
// its files lack included, and votes again. Meanwhile its vote does not count: with one
// of the others away nobody leads.
func TestEmptied(t *testing.T) {
	g := newGroup(t, 3)
	g.options = func(o *Options) { o.snapshotEntries = 40 }
	g.startAll()
	write := func(to int) {
		g.do(func(ctx context.Context, l *Leadership) error {
			for i := len(g.followers[l.node.o.Name].all("log")); i < to; i++ { // a new leader holds all that count
				l.Line("log", fmt.Appendf(nil, "line %d", i+1))
				if err := l.Flush(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	write(30)
	c := g.commit("g")
	n, l := g.lead()
	var victim, third string
	for _, m := range g.members {
		if m.Name != n.o.Name {
			victim, third = third, m.Name
		}
	}
	g.kill(victim)
	for range 60 {
		c = g.commit("g")
	}
	_ = l
	if err := os.RemoveAll(g.folder(victim)); err != nil {
		t.Fatal(err)
	}
	g.followers[victim].lines = map[string][]string{}
	g.kill(third)
	if err := g.start(victim); err != nil {
		t.Fatal(err)
	}
	g.eventually("it waits for the third", func() bool { return strings.Contains(g.node(victim).Status().Trouble, "waiting for "+third) })
	if _, _, err := g.leadWithin(10 * beat); err == nil {
		t.Fatal("somebody leads with the vote of a member that remembers nothing")
	}
	if err := g.start(third); err != nil {
		t.Fatal(err)
	}
	g.eventually("it votes again", func() bool { return g.node(victim).Status().Votes })
	g.eventually("it has all lines", func() bool {
		return slices.Equal(g.followers[victim].all("log"), g.followers[third].all("log")) && len(g.followers[victim].all("log")) == 30
	})
	g.kill(third)
	if d := g.commit("g"); d.Step != c.Step+1 {
		t.Errorf("step %d after %d", d.Step, c.Step)
	}
}

// TestDamage damages each file of a member in turn: it refuses to start and names the
// folder, and is filled again when that is empty.
func TestDamage(t *testing.T) {
	g := newGroup(t, 3)
	g.options = func(o *Options) { o.snapshotEntries = 30 }
	g.startAll()
	for range 50 {
		g.commit("g")
	}
	n, _ := g.lead()
	victim := g.members[0].Name
	if victim == n.o.Name {
		victim = g.members[1].Name
	}
	g.eventually("a snapshot", func() bool { list, _ := g.node(victim).snaps.List(); return len(list) > 0 })
	snaps := g.node(victim).snaps
	g.kill(victim)
	list, _ := snaps.List()
	var paths []string
	err := filepath.WalkDir(g.folder(victim), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasSuffix(path, ".tmp") && e.Name() != reachFile &&
			(!strings.Contains(path, "snapshots") || strings.Contains(path, list[0].ID)) { // an older one does not count
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, content := range map[string][]byte{
			"a bit": func() []byte {
				b, at := slices.Clone(whole), len(whole)/2
				if filepath.Base(path) == "meta.json" { // of what counts in it
					at = bytes.Index(b, []byte(`"Index":`)) + 8
				}
				b[at] ^= 4
				return b
			}(),
			"cut": whole[:len(whole)*2/3], "gone": nil,
		} {
			if content == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, content, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			err := g.start(victim)
			var damaged *DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), g.folder(victim)) {
				t.Errorf("%s of %s: started, or said %v", what, path, err)
			}
			g.kill(victim)
			if err := os.WriteFile(path, whole, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(g.folder(victim)); err != nil {
		t.Fatal(err)
	}
	if err := g.start(victim); err != nil {
		t.Fatal(err)
	}
	c := g.commit("g")
	g.eventually("it is filled", func() bool { return g.node(victim).Settings().Step == c.Step })
}
