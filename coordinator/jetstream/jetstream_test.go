package jetstream_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator"
	"mochi/coordinator/jetstream"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, dir string) (*nats.Conn, func()) {
	t.Helper()
	s, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		s.Shutdown()
		t.Fatal(err)
	}
	stop := func() { nc.Close(); s.Shutdown() }
	t.Cleanup(stop)
	return nc, stop
}

func open(t *testing.T, nc *nats.Conn) *jetstream.Log {
	t.Helper()
	l, err := jetstream.Open(timeout(t), nc, "test")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func commit(step int64) protocol.Commit {
	return protocol.Commit{
		Step: step, Round: 1, Cursor: 8 * (step - 1), Batch: 8, LR: 0.03, Digest: "d",
		Groups: []protocol.GroupReport{{Group: 0, Figures: figures.Figures{Loss: 1.25, Proxy: 3}}},
	}
}

func TestLogSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	nc, stop := start(t, dir)
	l := open(t, nc)
	if _, ok, err := l.Last(timeout(t)); ok || err != nil {
		t.Fatalf("an empty log: %v %v", ok, err)
	}
	if got, err := l.After(timeout(t), 0); len(got) != 0 || err != nil {
		t.Fatalf("an empty log: %v %v", got, err)
	}
	if d, err := l.Data(timeout(t)); d.Kind != "" || err != nil {
		t.Fatalf("no data yet: %+v %v", d, err)
	}
	data := protocol.Data{Kind: "idx", Train: 60000, Classes: 10, Digest: "abc"}
	if err := l.SaveData(timeout(t), data); err != nil {
		t.Fatal(err)
	}
	if round, err := l.Round(timeout(t)); round != 0 || err != nil {
		t.Fatalf("no round yet: %d %v", round, err)
	}
	if err := l.SaveRound(timeout(t), 12); err != nil {
		t.Fatal(err)
	}
	if text, err := l.Note(timeout(t), "jury"); text != "" || err != nil {
		t.Fatalf("no note yet: %q %v", text, err)
	}
	if err := errors.Join(l.SaveNote(timeout(t), "jury", "one"), l.SaveNote(timeout(t), "jury", "two"), l.SaveNote(timeout(t), "x", "three")); err != nil {
		t.Fatal(err)
	}
	for step := int64(1); step <= 5; step++ {
		if err := l.Append(timeout(t), commit(step)); err != nil {
			t.Fatal(err)
		}
	}
	stop()

	nc, _ = start(t, dir)
	l = open(t, nc)
	last, ok, err := l.Last(timeout(t))
	if err != nil || !ok || !reflect.DeepEqual(last, commit(5)) {
		t.Fatalf("after a restart: %+v %v %v", last, ok, err)
	}
	if err := l.Append(timeout(t), commit(6)); err != nil {
		t.Fatal(err)
	}
	got, err := l.After(timeout(t), 3)
	if want := []protocol.Commit{commit(4), commit(5), commit(6)}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("After(3) = %+v, %v", got, err)
	}
	if got, err := l.After(timeout(t), 0); err != nil || len(got) != 6 {
		t.Fatalf("After(0): %d commits, %v", len(got), err)
	}
	if round, err := l.Round(timeout(t)); round != 12 || err != nil {
		t.Fatalf("round after a restart: %d %v", round, err)
	}
	for name, want := range map[string]string{"jury": "two", "x": "three", "y": ""} {
		if text, err := l.Note(timeout(t), name); text != want || err != nil {
			t.Fatalf("note %s after a restart: %q %v", name, text, err)
		}
	}
	if err := l.SaveNote(timeout(t), "jury", strings.Repeat("x", coordinator.MaxNote+1)); err == nil {
		t.Error("a note that is too long was taken")
	}
	if d, err := l.Data(timeout(t)); d != data || err != nil {
		t.Fatalf("data after a restart: %+v %v", d, err)
	}
}

func TestStaleLeaderIsFenced(t *testing.T) {
	nc, _ := start(t, t.TempDir())
	old, next := open(t, nc), open(t, nc)
	for _, l := range []*jetstream.Log{old, next} {
		if _, _, err := l.Last(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Append(timeout(t), commit(1)); err != nil {
		t.Fatal(err)
	}
	other := commit(1)
	other.Digest = "other"
	if err := old.Append(timeout(t), other); !errors.Is(err, coordinator.ErrFenced) {
		t.Fatalf("a stale leader appended: %v", err)
	}
	// The same commit again (its first acknowledgement was lost) is not an error.
	if err := old.Append(timeout(t), commit(1)); err != nil {
		t.Fatalf("the same commit again: %v", err)
	}
	if got, err := next.After(timeout(t), 0); err != nil || len(got) != 1 {
		t.Fatalf("%d commits, %v", len(got), err)
	}
}

func kv(t *testing.T, nc *nats.Conn) js.KeyValue {
	t.Helper()
	api, err := js.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := api.KeyValue(timeout(t), "MOCHI_test_LEASE")
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestLease(t *testing.T) {
	nc, _ := start(t, t.TempDir())
	log := slog.New(slog.DiscardHandler)
	lease := func(holder string) *jetstream.Lease {
		l, err := jetstream.NewLease(timeout(t), nc, "test", holder, 400*time.Millisecond, log)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := lease("a"), lease("b")
	if err := a.Acquire(timeout(t)); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(timeout(t))
	cancel()
	if err := b.Acquire(cancelled); !errors.Is(err, context.Canceled) {
		t.Fatalf("acquired a lease that is held: %v", err)
	}
	if err := a.Renew(timeout(t)); err != nil {
		t.Fatal(err)
	}
	// a stands still until it expired; nobody else wants it, so a goes on.
	for deadline := timeout(t); ; {
		if _, err := kv(t, nc).Get(deadline, "leader"); errors.Is(err, js.ErrKeyNotFound) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Renew(timeout(t)); err != nil {
		t.Fatalf("an expired lease that is free: %v", err)
	}
	// A renewal whose answer was lost.
	if _, err := kv(t, nc).Put(timeout(t), "leader", []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(timeout(t)); err != nil {
		t.Fatalf("a lease renewed unawares: %v", err)
	}
	if err := b.Acquire(timeout(t)); err != nil { // a stops renewing: it expires
		t.Fatal(err)
	}
	if err := a.Renew(timeout(t)); !errors.Is(err, coordinator.ErrFenced) {
		t.Fatalf("renewed a lost lease: %v", err)
	}
	if err := b.Release(timeout(t)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := lease("c").Acquire(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("a released lease took %v to acquire", took)
	}
}

func TestNoJetStream(t *testing.T) {
	nc, _ := start(t, "")
	if _, err := jetstream.Open(timeout(t), nc, "test"); err == nil {
		t.Fatal("opened a log on a server without storage")
	}
}
