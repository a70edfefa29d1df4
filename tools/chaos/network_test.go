package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// memory is a network that notes its weather.
type memory struct {
	network
	now map[path]weather
}

func (m *memory) set(from, to string, w weather) error { m.now[path{from, to}] = w; return nil }

// TestSkies: faults on one path are there together, and each goes alone.
func TestSkies(t *testing.T) {
	m := &memory{now: map[path]weather{}}
	s := skies{network: m}
	ab, ba := path{"a", "b"}, path{"b", "a"}
	end1, _ := s.add([]path{ab, ba}, weather{cut: true})
	end2, _ := s.add([]path{ab}, weather{delay: time.Second, rate: 10})
	end3, _ := s.add([]path{ab}, weather{delay: time.Minute, rate: 20, loss: 0.1})
	if got := m.now[ab]; got != (weather{cut: true, delay: time.Minute, rate: 10, loss: 0.1}) || m.now[ba] != (weather{cut: true}) {
		t.Errorf("%+v", m.now)
	}
	_ = end1()
	if got := m.now[ab]; got != (weather{delay: time.Minute, rate: 10, loss: 0.1}) || m.now[ba] != (weather{}) {
		t.Errorf("%+v", m.now)
	}
	_ = end3()
	if got := m.now[ab]; got != (weather{delay: time.Second, rate: 10}) {
		t.Errorf("%+v", got)
	}
	_ = end2()
	if m.now[ab] != (weather{}) {
		t.Errorf("%+v", m.now)
	}
}

// TestWeatherOf: each fault of the network is on paths of its victim, in the
// directions that its name says.
func TestWeatherOf(t *testing.T) {
	c := &cluster{replicas: map[string]*proc{"a": nil, "b": nil, "c": nil}}
	for kind, want := range map[string]int{
		"cut-up": 1, "cut-down": 1, "cut": 2, "slow": 2, "delay": 2, "loss": 2, "alone": 6,
		"ring-cut": 1, "ring-slow": 1, "ring-delay": 1, "ring-loss": 1, "kill": 0, "disk-full": 0,
	} {
		paths, w := c.weatherOf(Fault{Kind: kind, Who: "a", To: "b"})
		if len(paths) != want || want > 0 && w == (weather{}) {
			t.Errorf("%s: %v %+v", kind, paths, w)
		}
		ring := slices.Contains(paths, path{"a", "b"})
		if strings.HasPrefix(kind, "ring") != ring && kind != "alone" {
			t.Errorf("%s: %v", kind, paths)
		}
	}
}

// TestNamespaces: nodes reach each other, and no longer in the direction that is
// cut; afterwards nothing is left. It needs root.
func TestNamespaces(t *testing.T) {
	n, err := newNamespaces([]string{hub, "a"}, 1)
	if err != nil {
		t.Skip(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = n.close()
		}
	}()
	argv := n.command(hub, os.Args[0], "-test.run=^TestEcho$")
	echo := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	echo.Env = append(os.Environ(), "ECHO="+n.listen())
	out, err := echo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := echo.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil { // "ready"
		t.Fatal(err)
	}
	ask := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		argv := n.command("a", os.Args[0], "-test.run=^TestAsk$")
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "ASK="+n.join("a"))
		return cmd.Run()
	}
	if err := ask(time.Minute); err != nil {
		t.Fatalf("a does not reach the coordinator: %v", err)
	}
	for _, w := range []weather{{cut: true}, {rate: 1}} {
		for _, p := range []path{{"a", hub}, {hub, "a"}} {
			if err := n.set(p.from, p.to, w); err != nil {
				t.Fatal(err)
			}
			if w.cut && ask(time.Second) == nil {
				t.Errorf("%v is cut, and an answer came", p)
			}
			if err := n.set(p.from, p.to, weather{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n.set("a", hub, weather{loss: 0.05, delay: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := ask(time.Minute); err != nil {
		t.Errorf("in bad weather a does not reach the coordinator: %v", err)
	}
	_ = echo.Process.Kill()
	_ = echo.Wait()
	closed = true
	if err := n.close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir("/run/netns")
	for _, e := range left {
		if strings.HasPrefix(e.Name(), n.prefix) {
			t.Errorf("%s is left, %v", e.Name(), err)
		}
	}
}

// TestEcho is a process of TestNamespaces: it answers whoever asks.
func TestEcho(t *testing.T) {
	if os.Getenv("ECHO") == "" {
		t.Skip("a process of TestNamespaces")
	}
	l, err := net.Listen("tcp", os.Getenv("ECHO"))
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go func() { io.Copy(c, c); c.Close() }()
	}
}

// TestAsk is the other process: it ends when it was answered.
func TestAsk(t *testing.T) {
	if os.Getenv("ASK") == "" {
		t.Skip("a process of TestNamespaces")
	}
	c, err := net.Dial("tcp", os.Getenv("ASK"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}
