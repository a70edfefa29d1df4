package quorum

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mochi/coordinator"
)

// TestDiskOfTheLeaderStands: a leader whose disk does not finish a write steps down, and
// another one leads, though all of them hear each other.
func TestDiskOfTheLeaderStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		w.startAll()
		c := w.commit("g")
		n, l := w.lead()
		start := time.Now()
		w.fault(n.o.Name, fault{stands: true})
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		if err := l.Append(ctx, next(c, "mine")); !errors.Is(err, coordinator.ErrFenced) {
			t.Errorf("append of a leader whose disk stands still: %v", err)
		}
		d := w.commit("theirs")
		if took := time.Since(start); took > writeLimit+10*time.Second {
			t.Errorf("another leads after %v", took)
		}
		w.fault(n.o.Name, fault{})
		w.eventually("it follows", func() bool { return n.Settings().Step == d.Step })
		w.end()
	})
}

// TestFullDisks: a member whose disk is full neither leads nor holds up the others, and
// takes part again when there is room.
func TestFullDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		w.startAll()
		w.commit("g")                 // there is a group
		for _, m := range w.members { // one after the other
			w.fault(m.Name, fault{full: true})
			c := w.commit("g")
			if !strings.Contains(w.node(m.Name).Status().Trouble, "full") {
				w.eventually("it says so", func() bool { return strings.Contains(w.node(m.Name).Status().Trouble, "full") })
			}
			w.fault(m.Name, fault{})
			w.eventually(m.Name+" follows", func() bool { return w.node(m.Name).Settings().Step == c.Step })
		}
		w.end()
	})
}

// TestLinesThatCannotBeWritten: a follower whose files cannot be written gets what it
// missed later, also when it was let go of.
func TestLinesThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		w.startAll()
		n, l := w.lead()
		victim := w.members[0].Name
		if victim == n.o.Name {
			victim = w.members[1].Name
		}
		var broken atomic.Bool
		broken.Store(true)
		w.followers[victim].mu.Lock()
		w.followers[victim].fails = func(string, int64) error {
			if broken.Load() {
				return errors.New("no room")
			}
			return nil
		}
		w.followers[victim].mu.Unlock()
		text := strings.Repeat("x", 1<<20)
		for i := range 80 { // more than are kept in memory
			l.Line("log", fmt.Appendf(nil, "%d %s", i, text))
		}
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.eventually("it says so", func() bool { return strings.Contains(w.node(victim).Status().Trouble, "no room") })
		broken.Store(false)
		w.eventually("all lines", func() bool { return len(w.followers[victim].all("log")) == 80 })
		w.end()
	})
}

// TestTwoHistories: a member whose files hold more lines than the group has, or others,
// leaves it and says what to do. The first leader's own lines are the group's.
func TestTwoHistories(t *testing.T) {
	for name, c := range map[string]struct {
		a, b  int  // lines that they have before
		other bool // b's last one is another
		out   bool // b leaves
	}{
		"one coordinator becomes three": {a: 5},
		"a copy that is behind":         {a: 5, b: 3},
		"another run":                   {a: 5, b: 3, other: true, out: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 1)
				for i := range c.a {
					w.followers["a"].lines["log"] = append(w.followers["a"].lines["log"], fmt.Sprint("old ", i))
				}
				w.followers["b"].lines["log"] = append([]string{}, w.followers["a"].lines["log"][:c.b]...)
				if c.other {
					w.followers["b"].lines["log"][c.b-1] = "other"
				}
				w.startAll()
				w.do(func(ctx context.Context, l *Leadership) error {
					l.Line("log", []byte("new"))
					return l.Flush(ctx)
				})
				for _, m := range w.members {
					if m.Name == "b" && c.out {
						w.eventually("it leaves", func() bool { return w.node("b").Err() != nil })
						if err := w.node("b").Err(); !strings.Contains(err.Error(), "of another run") {
							t.Error(err)
						}
						b := w.node("b")
						b.mu.Lock()
						b.failed = nil // as expected
						b.mu.Unlock()
						continue
					}
					w.eventually("all lines at "+m.Name, func() bool { return len(w.followers[m.Name].all("log")) == c.a+1 })
				}
				w.end()
			})
		})
	}
}

// TestStrangers: what connects and is no member of the group is refused with words, or
// passed over, and holds nobody up.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 1)
		w.startAll()
		w.lead()
		good := hello{Magic: helloMagic, Job: "job", From: "b", To: "a", Ask: askState}
		for name, c := range map[string]struct {
			change func(*hello)
			want   string
		}{
			"as it should be":    {func(*hello) {}, ""},
			"another program":    {func(h *hello) { h.Magic = "x" }, "build"},
			"another job":        {func(h *hello) { h.Job = "x" }, `job "job"`},
			"another member":     {func(h *hello) { h.To = "c" }, `coordinator "a"`},
			"a namesake":         {func(h *hello) { h.From = "a" }, "name of its own"},
			"an unknown member":  {func(h *hello) { h.From = "z" }, "--standby"},
			"of another group":   {func(h *hello) { h.Group = "x" }, "group"},
			"lines of no file":   {func(h *hello) { h.Ask, h.File, h.N = askLines, "none", 1 }, ""},
			"asks for its vote":  {func(h *hello) { h.Ask = askAdmit }, "another coordinator leads"},
			"asks for who knows": {func(h *hello) { h.Ask = "what" }, ""},
		} {
			h := good
			c.change(&h)
			conn, err := w.connect(w.ctx, "b", "a")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = writeLine(conn, h) }()
			var a answer
			err = readLine(bufio.NewReader(conn), &a)
			if n := w.node("a"); name == "asks for its vote" && n.raft.State().String() == "Leader" {
				c.want = ""
			}
			if err != nil || (c.want == "") != (a.Error == "") || !strings.Contains(a.Error, c.want) {
				t.Errorf("%s: %+v %v", name, a, err)
			}
			conn.Close()
		}
		for _, noise := range []string{"", "GET / HTTP/1.1\r\n\r\n", "{}\n", "{\"mochi\":\n", strings.Repeat("x", 1<<20)} {
			conn, err := w.connect(w.ctx, "b", "a")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.WriteString(conn, noise)
				_, _ = io.Copy(io.Discard, conn)
			}()
			select {
			case <-done:
			case <-time.After(3 * helloLimit):
				t.Errorf("a connection that says %.20q is kept", noise)
			}
			conn.Close()
		}
		w.commit("g")
		w.end()
	})
}

// TestOptions: what is wrong with the options is said, all of it.
func TestOptions(t *testing.T) {
	members := []Member{{"a", "h:1", "h:2"}, {"b", "i:1", "i:2"}, {"c", "j:1", "j:2"}}
	for want, change := range map[string]func(*Options){
		"3 or 5":       func(o *Options) { o.Members = members[:2] },
		"there twice":  func(o *Options) { o.Members = []Member{members[0], members[0], members[2]} },
		"no HOST:PORT": func(o *Options) { o.Members = []Member{members[0], members[1], {"c", "j:1", "j"}} },
		"none of the":  func(o *Options) { o.Name = "z" },
		"missing":      func(o *Options) { o.Dir = "" },
	} {
		o := Options{Job: "job", Name: "a", Members: members, Dir: t.TempDir(), Follow: newFiles()}
		change(&o)
		if _, err := Start(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
