package main

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// translator forwards connections to another address, as a gateway does, and counts
// them.
func translator(t *testing.T, to string) (addr string, count *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	count = new(atomic.Int32)
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", to)
			if err != nil {
				from.Close() // it is not there yet, or no more
				continue
			}
			count.Add(1)
			forward := func(a, b net.Conn) {
				io.Copy(a, b)
				a.Close()
				b.Close()
			}
			go forward(from, onward)
			go forward(onward, from)
		}
	}()
	return l.Addr().String(), count
}

// A cluster over IPv6, one of its replicas behind a gateway that translates its
// address, one known by a name; and no gossip, since its ports are taken. It
// ends as every other.
func TestAddresses(t *testing.T) {
	const any = "[::1]:0"
	taken, err := net.Listen("tcp", any)
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	defer taken.Close()
	port, err := net.Listen("tcp", any)
	if err != nil {
		t.Fatal(err)
	}
	addr := port.Addr().String()
	port.Close()
	data := writeIDX(t, t.TempDir(), 100, 20)
	root := t.TempDir()
	one, state := filepath.Join(root, "one"), filepath.Join(root, "cluster")
	mochi(t, append([]string{"train", "--data", data, "--out", one, "--steps", "20"}, tiny...)...)

	c := start(t, append([]string{
		"coordinator", "--listen", addr, "--gossip", taken.Addr().String(), "--state", state, "--steps", "20", "--min-replicas", "3",
	}, tiny...)...)
	join := func(name string, flags ...string) *process {
		return start(t, append([]string{"replica", "--join", "nats://" + addr, "--data", data, "--name", name, "--threads", "1"}, flags...)...)
	}
	listen := freePort(t)
	gateway, passed := translator(t, listen)
	replicas := []*process{
		join("plain", "--gossip", taken.Addr().String()),
		join("named", "--advertise", "localhost"),
		join("behind", "--listen", listen, "--advertise", gateway),
	}
	c.mustEnd(0)
	for _, r := range replicas {
		r.mustEnd(0)
	}
	mustEqual(t, one, state)
	for who, p := range map[string]*process{"the coordinator": c, "the replica whose port is taken": replicas[0]} {
		if !strings.Contains(p.errs.String(), "no gossip; losses are noticed by other means") {
			t.Errorf("%s does not say that it goes without gossip:\n%s", who, p.errs.String())
		}
	}
	if passed.Load() == 0 {
		t.Error("nobody came by the advertised address")
	}
}
