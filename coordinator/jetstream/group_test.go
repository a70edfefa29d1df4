package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mochi/allreduce/natsserver/existing"
	"mochi/coordinator"
	"mochi/coordinator/follow"
	"mochi/coordinator/jetstream"
	"mochi/coordinator/protocol"
)

// files are a follower's, in memory.
type files struct {
	mu     sync.Mutex
	lines  map[string][][]byte
	stored int64 // told
	own    int64 // held
	over   *follow.Outcome
	config string
}

func (f *files) do(what func()) { f.mu.Lock(); defer f.mu.Unlock(); what() }

func (f *files) Held(file string) (n int64, err error) {
	f.do(func() { n = int64(len(f.lines[file])) })
	return n, nil
}

func (f *files) Line(file string, n int64, line []byte) (err error) {
	f.do(func() {
		if f.over = nil; n != int64(len(f.lines[file]))+1 {
			err = fmt.Errorf("line %d behind %d", n, len(f.lines[file]))
			return
		}
		f.lines[file] = append(f.lines[file], slices.Clone(line))
	})
	return err
}

func (f *files) Read(file string, n int64, _ int) (lines [][]byte, err error) {
	f.do(func() {
		if n <= int64(len(f.lines[file])) {
			lines = slices.Clone(f.lines[file][n-1:])
		}
	})
	return lines, nil
}

func (f *files) Sync() error                 { return nil }
func (f *files) Configured(text string)      { f.do(func() { f.config = text }) }
func (f *files) Stored(c follow.Checkpoint)  { f.do(func() { f.stored = c.Step }) }
func (f *files) Over(o follow.Outcome)       { f.do(func() { f.over = &o }) }
func (f *files) Checkpoint() (int64, int64)  { f.mu.Lock(); defer f.mu.Unlock(); return f.own, 0 }
func (f *files) text(file string) (s string) { f.do(func() { s = joined(f.lines[file]) }); return s }

func joined(lines [][]byte) string {
	var all []string
	for _, l := range lines {
		all = append(all, string(l))
	}
	return strings.Join(all, " ")
}

// member is one coordinator.
type member struct {
	*jetstream.Group
	nc    *nats.Conn
	files *files
}

func join(t testing.TB, s *existing.Servers, name string, f *files) *member {
	t.Helper()
	nc, err := nats.Connect(s.Join(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		f = &files{lines: map[string][][]byte{}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g, _, err := jetstream.Join(ctx, jetstream.Options{Job: "test", Name: name, Conn: nc, Follow: f, Files: []string{"log"}, TTL: 600 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{g, nc, f}
	t.Cleanup(m.gone)
	return m
}

// gone ends it without a word, as a kill does.
func (m *member) gone() { m.nc.Close(); m.Close() }

func (m *member) lead(t testing.TB) *jetstream.Leadership {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := m.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// chained are n commits behind another.
func chained(last protocol.Commit, n int, digest string) (all []protocol.Commit) {
	for range n {
		c := commit(last.Step + 1)
		c.Digest, c.Term = digest, 1
		c.Chain = c.Link(last.Chain)
		all, last = append(all, c), c
	}
	return all
}

func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !so(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not yet: %s", what)
		}
	}
}

func steps(t testing.TB, l coordinator.Log) (first, last int64, n int) {
	t.Helper()
	all, err := l.After(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	return all[0].Step, all[len(all)-1].Step, len(all)
}

// TestLeadIsFenced: one leads, stands still until its lease has run out, and goes on when
// another leads: nothing of what it writes is taken, and it is told so.
func TestLeadIsFenced(t *testing.T) {
	s := existing.Start(t, existing.Options{JetStream: true})
	ctx := context.Background()
	a := join(t, s, "a", nil)
	l := a.lead(t)
	history := chained(protocol.Commit{}, 5, "d")
	for _, c := range history {
		if err := errors.Join(l.Append(ctx, c), l.Append(ctx, c)); err != nil { // an answer may be lost
			t.Fatal(err)
		}
	}
	term, err := l.Lead(ctx, 0)
	if err := errors.Join(err, l.SaveRound(ctx, 7), l.SaveNote(ctx, "jury", "x"), l.SaveConfig(ctx, "yaml")); err != nil {
		t.Fatal(err)
	}
	b := join(t, s, "b", nil)
	// The lease is taken away, as when it had run out.
	api, _ := js.New(b.nc)
	lease, err := api.KeyValue(ctx, "MOCHI_test_LEADER")
	if err == nil {
		err = lease.Delete(ctx, "leader")
	}
	if err != nil {
		t.Fatal(err)
	}
	var next *jetstream.Leadership
	for next == nil { // a may have been faster to take it again
		within, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		next, _ = b.Lead(within)
		cancel()
		if next == nil {
			_ = lease.Delete(ctx, "leader")
		}
	}
	for what, err := range map[string]error{
		"a commit": l.Append(ctx, chained(history[4], 1, "late")[0]), "commits": l.Adopt(ctx, chained(history[2], 2, "late")),
		"a round": l.SaveRound(ctx, 9), "a note": l.SaveNote(ctx, "jury", "late"), "what is forgotten": func() error { _, err := l.Lead(ctx, 50); return err }(),
	} {
		if !errors.Is(err, coordinator.ErrFenced) {
			t.Errorf("%s of a leader whose time is over: %v", what, err)
		}
	}
	select {
	case <-l.Done():
	case <-time.After(20 * time.Second):
		t.Error("it was not told")
	}
	if _, last, n := steps(t, next); last != 5 || n != 5 {
		t.Errorf("%d commits up to %d, want 5", n, last)
	}
	round, err := next.Round(ctx)
	note, err2 := next.Note(ctx, "jury")
	later, err3 := next.Lead(ctx, 0)
	if err := errors.Join(err, err2, err3); err != nil || round != 7 || note != "x" || later <= term || b.Settings().Config != "yaml" {
		t.Errorf("round %d, note %q, term %d after %d, config %q: %v", round, note, later, term, b.Settings().Config, err)
	}
	if err := next.Append(ctx, chained(history[4], 1, "d")[0]); err != nil {
		t.Error(err)
	}
}

// TestAdoptAndForget: commits of others take the place of those that are there; what is
// covered goes, for those that stand by too.
func TestAdoptAndForget(t *testing.T) {
	s := existing.Start(t, existing.Options{JetStream: true})
	ctx := context.Background()
	a, b := join(t, s, "a", nil), join(t, s, "b", nil)
	l := a.lead(t)
	ours := chained(protocol.Commit{}, 20, "d")
	other := append(slices.Clone(ours[:10]), chained(ours[9], 4, "e")...)
	alone := chained(protocol.Commit{}, 2300, "f")[100:]
	for _, c := range []struct {
		adopt       []protocol.Commit
		first, last int64
	}{{ours, 1, 20}, {other[10:], 1, 14}, {nil, 1, 14}, {alone, 101, 2300}} {
		if err := l.Adopt(ctx, c.adopt); err != nil {
			t.Fatal(err)
		}
		if first, last, n := steps(t, l); first != c.first || last != c.last || int64(n) != last-first+1 {
			t.Fatalf("%d commits, %d to %d, want %d to %d", n, first, last, c.first, c.last)
		}
	}
	if err := l.Adopt(ctx, []protocol.Commit{ours[3], ours[5]}); err == nil {
		t.Error("adopted commits with a gap")
	}
	for _, c := range []struct{ forget, first int64 }{{900, 101}, {1150, 1151}} {
		if err := l.Forget(ctx, c.forget); err != nil {
			t.Fatal(err)
		}
		if first, last, _ := steps(t, l); first != c.first || last != 2300 {
			t.Errorf("after Forget(%d): %d to %d, want %d to 2300", c.forget, first, last, c.first)
		}
	}
	api, _ := js.New(a.nc)
	stream, err := api.Stream(ctx, "MOCHI_test")
	if err != nil || stream.CachedInfo().State.Msgs > 1300 {
		t.Errorf("%d entries are left: %v", stream.CachedInfo().State.Msgs, err)
	}
	eventually(t, "b has read all", func() bool { return b.Settings().Step == 2300 })
	if err := l.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	if first, last, _ := steps(t, b.lead(t)); first != 1151 || last != 2300 {
		t.Errorf("whoever leads next has %d to %d", first, last)
	}
}

// TestLinesReachAll: all have the same lines, those from before too, whoever leads and
// whenever they come; a file of another run is refused.
func TestLinesReachAll(t *testing.T) {
	s := existing.Start(t, existing.Options{JetStream: true})
	ctx := context.Background()
	a := join(t, s, "a", &files{lines: map[string][][]byte{"log": {[]byte("x"), []byte("y")}}})
	b := join(t, s, "b", nil)
	l := a.lead(t)
	for _, text := range []string{"1", "2", "3"} {
		l.Line("log", []byte(text))
	}
	l.Stored(follow.Checkpoint{Name: "c", Step: 3})
	if err := l.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	const want = "x y 1 2 3"
	eventually(t, "b has the lines", func() bool { return b.files.text("log") == want })
	eventually(t, "b knows the checkpoint", func() bool { b.files.mu.Lock(); defer b.files.mu.Unlock(); return b.files.stored == 3 })
	a.gone()
	b.files.do(func() { b.files.own = 3 })
	l = b.lead(t)
	l.Line("log", []byte("4"))
	if err := l.Over(ctx, follow.Outcome{Status: 130, Reason: "told"}); err != nil {
		t.Fatal(err)
	}
	c := join(t, s, "c", nil)
	eventually(t, "c has all", func() bool { return c.files.text("log") == want+" 4" })
	b.gone()
	l = c.leadAgain(t)
	l.Line("log", []byte("5"))
	if err := l.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	foreign := join(t, s, "d", &files{lines: map[string][][]byte{"log": make([][]byte, 40)}})
	within, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := foreign.Lead(within); err == nil || !strings.Contains(err.Error(), "is of another run") {
		t.Errorf("files of another run: %v", err)
	}
}

// leadAgain leads without the newest checkpoint, which nobody has: after a while.
func (m *member) leadAgain(t testing.TB) *jetstream.Leadership {
	m.files.do(func() { m.files.own = 3 })
	return m.lead(t)
}

// TestWhatIsSaid: a stream that somebody made in memory, or with one copy in a cluster,
// is used, and said; ours has three copies on disk there.
func TestWhatIsSaid(t *testing.T) {
	s := existing.Start(t, existing.Options{JetStream: true, Servers: 3})
	nc, err := nats.Connect(s.Join())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	api, err := js.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := api.CreateStream(ctx, js.StreamConfig{
		Name: "MOCHI_theirs", Subjects: []string{"mochi.theirs.log.>"}, Storage: js.MemoryStorage, Replicas: 1, AllowRollup: true,
	}); err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string][]string{
		"theirs": {"stream MOCHI_theirs is kept in memory", "stream MOCHI_theirs has one copy, and NATS is a cluster", "is not known"},
		"ours":   {"is not known"},
	} {
		g, said, err := jetstream.Join(ctx, jetstream.Options{Job: job, Name: "a", Conn: nc, Follow: &files{lines: map[string][][]byte{}}})
		if err != nil {
			t.Fatal(err)
		}
		g.Close()
		if len(said) != len(want) {
			t.Errorf("%s: %q", job, said)
		}
		for i := range min(len(said), len(want)) {
			if !strings.Contains(said[i], want[i]) {
				t.Errorf("%s: %q does not say %q", job, said[i], want[i])
			}
		}
	}
	ours, err := api.Stream(ctx, "MOCHI_ours")
	if err != nil || ours.CachedInfo().Config.Replicas != 3 || ours.CachedInfo().Config.Storage != js.FileStorage {
		t.Errorf("%+v %v", ours.CachedInfo().Config, err)
	}
}

// BenchmarkTakeover ends the leader b.N times without a word and says how long it takes
// until another one leads, at the lease that is the default: on one NATS server, and on
// three of which the one that leads the stream ends too.
//
//	go test ./coordinator/jetstream -run - -bench Takeover -benchtime 20x
func BenchmarkTakeover(b *testing.B) {
	for _, c := range []struct {
		name    string
		servers int
		server  bool // ends too
	}{{"one", 1, false}, {"three", 3, false}, {"three/server", 3, true}} {
		b.Run(c.name, func(b *testing.B) {
			s := existing.Start(b, existing.Options{JetStream: true, Servers: c.servers})
			var took []time.Duration
			last := protocol.Commit{}
			leader := benchMember(b, s)
			l := leader.lead(b)
			for range b.N {
				next := benchMember(b, s)
				commits := chained(last, 3, "d")
				for _, one := range commits {
					if err := l.Append(context.Background(), one); err != nil {
						b.Fatal(err)
					}
				}
				last = commits[2]
				eventually(b, "it follows", func() bool { return next.Settings().Step == last.Step })
				start, stopped := time.Now(), -1
				leader.gone()
				if c.server {
					stopped = s.Leader("MOCHI_test")
					s.Stop(stopped)
				}
				l = next.lead(b)
				for err := errors.New("not yet"); err != nil; { // an answer may be lost
					if err = l.Append(context.Background(), chained(last, 1, "d")[0]); errors.Is(err, coordinator.ErrFenced) {
						b.Fatal(err)
					}
				}
				took = append(took, time.Since(start))
				b.Logf("%v", took[len(took)-1])
				last = chained(last, 1, "d")[0]
				if leader = next; stopped >= 0 {
					s.Begin(stopped)
					s.Ready()
				}
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds(), "s-median")
			b.ReportMetric(took[len(took)-1].Seconds(), "s-max")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchMember(b *testing.B, s *existing.Servers) *member {
	nc, err := nats.Connect(s.Join(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		b.Fatal(err)
	}
	f := &files{lines: map[string][][]byte{}}
	g, _, err := jetstream.Join(context.Background(), jetstream.Options{Job: "test", Name: "m", Conn: nc, Follow: f, Files: []string{"log"}})
	if err != nil {
		b.Fatal(err)
	}
	m := &member{g, nc, f}
	b.Cleanup(m.gone)
	return m
}
