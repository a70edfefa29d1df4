package gossip_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"mochi/coordinator/gossip"
)

func start(t *testing.T, cfg gossip.Config) *gossip.Member {
	t.Helper()
	m, err := gossip.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Shutdown)
	return m
}

// await reads hints until all wanted ones have come, in any order, and says
// how long it took.
func await(t *testing.T, m *gossip.Member, want ...gossip.Hint) time.Duration {
	t.Helper()
	began := time.Now()
	limit := time.After(20 * time.Second)
	for len(want) > 0 {
		select {
		case h := <-m.Events():
			want = slices.DeleteFunc(want, func(w gossip.Hint) bool { return w == h })
		case <-limit:
			t.Fatalf("no hint %+v", want)
		}
	}
	return time.Since(began)
}

func TestHints(t *testing.T) {
	key := []byte("0123456789abcdef")
	a := start(t, gossip.Config{Name: "a", Key: key})
	b := start(t, gossip.Config{Name: "b", Key: key, Join: []string{a.Addr()}})
	c := start(t, gossip.Config{Name: "c", Key: key, Join: []string{"127.0.0.1:1", a.Addr()}})
	await(t, a, gossip.Hint{Name: "b", State: gossip.Alive}, gossip.Hint{Name: "c", State: gossip.Alive})
	await(t, b, gossip.Hint{Name: "c", State: gossip.Alive})

	c.Shutdown() // dies without a word
	t.Logf("a dead member was noticed after %v", await(t, a, gossip.Hint{Name: "c", State: gossip.Dead}))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := b.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, a, gossip.Hint{Name: "b", State: gossip.Dead})
	a.Shutdown()
	for range a.Events() { // ends: the channel is closed
	}
}

func TestStartErrors(t *testing.T) {
	a := start(t, gossip.Config{Name: "a"})
	for want, cfg := range map[string]gossip.Config{
		"no name":             {},
		"none of 127.0.0.1:1": {Name: "b", Join: []string{"127.0.0.1:1"}},
		"not an IP address":   {Name: "b", Bind: "256.0.0.1"},
		"none of " + a.Addr(): {Name: "b", Join: []string{a.Addr()}, Key: []byte("0123456789abcdef")},
	} {
		if m, err := gossip.Start(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: want an error with %q, got %v", cfg, want, err)
			if err == nil {
				m.Shutdown()
			}
		}
	}
}

// Others are told an address that they can use, whatever is listened on.
func TestAdvertised(t *testing.T) {
	a := start(t, gossip.Config{Name: "a", Bind: "0.0.0.0", Advertise: "127.0.0.1"})
	if host, port, err := net.SplitHostPort(a.Addr()); err != nil || host != "127.0.0.1" || port == "0" {
		t.Errorf("advertised 127.0.0.1, told %q %v", a.Addr(), err)
	}
	b := start(t, gossip.Config{Name: "b", Join: []string{a.Addr()}})
	await(t, a, gossip.Hint{Name: "b", State: gossip.Alive})
	await(t, b, gossip.Hint{Name: "a", State: gossip.Alive})
	if m, err := gossip.Start(gossip.Config{Name: "c", Advertise: "localhost"}); err == nil || !strings.Contains(err.Error(), `"localhost" is not an IP address`) {
		t.Errorf("a name as an address: %v", err)
		if err == nil {
			m.Shutdown()
		}
	}
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	l.Close()
	// A machine may have no address but loopback; then it says so.
	m, err := gossip.Start(gossip.Config{Name: "d", Bind: "::"})
	if err != nil {
		if !strings.Contains(err.Error(), "no address that others could reach") {
			t.Error(err)
		}
		return
	}
	defer m.Shutdown()
	if host, _, err := net.SplitHostPort(m.Addr()); err != nil || net.ParseIP(host).IsUnspecified() {
		t.Errorf("listening on all addresses, told %q %v", m.Addr(), err)
	}
}
