package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Rings in the clear, with keys of their rounds: members come and die, the coordinator too,
// and the job ends like one that nothing happened to. That it is the clear, a port shows;
// and nobody is let in there.
func TestPlainRings(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := &broken{T: t, data: data, state: filepath.Join(t.TempDir(), "cluster")}
	addr, ring := freePort(t), freePort(t)
	plain := []string{"--ring-security", "plain", "--ring-lane", "direct", "--min-replicas", "2"}
	b.restartAt(addr, plain...)
	b.replicas = append(b.replicas, start(t, "replica", "--join", addr, "--data", data, "--name", "heard", "--threads", "1", "--listen", ring))
	b.join("other")
	b.awaitStep(2)
	if said := firstWords(t, ring); !strings.HasPrefix(said, "INFO ") {
		t.Errorf("a ring in the clear says %q", said)
	}
	b.join("late")
	b.awaitEvents("round", "late", 1)
	b.byName("other").kill()
	b.awaitEvents("replica lost", "other", 1)
	b.coordinator.kill()
	b.restart(plain...)
	b.mustEndLike(whole, b.byName("heard"), b.byName("late"))
}

// firstWords is what a port says to whoever connects, in a second.
func firstWords(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	n, _ := c.Read(b)
	return string(b[:n])
}

// Without tokens there is nobody to tell a key to, and nobody knows whom to let in.
func TestRingSecurityWithoutTokens(t *testing.T) {
	state := filepath.Join(t.TempDir(), "s")
	for _, without := range [][]string{{"--insecure"}, {"--nats", "nats://127.0.0.1:1"}} {
		args := append(append([]string{"coordinator", "--state", state}, tiny...), without...)
		refused(t, 2, append(args, "--ring-security", "plain"), "ring-security: plain does not go with "+without[0], "leave the setting out")
		refused(t, 2, append(args, "--ring-security", "tls"), "ring-security: tls does not go with "+without[0], "leave the setting out")
	}
	refused(t, 2, append([]string{"coordinator", "--state", state, "--ring-security", "none"}, tiny...), "ring-security", "plain")
}
