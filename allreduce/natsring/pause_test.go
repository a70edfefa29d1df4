package natsring_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A successor that reads nothing for longer than NATS's usual patience with a full
// line, and shorter than it takes to be given up, gets all that was sent.
func TestPauseOfASuccessor(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	slow, err := net.Dial("tcp", strings.TrimPrefix(server.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.WriteString(slow, "CONNECT {\"verbose\":false}\r\nSUB x 1\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(slow)
	for line := ""; line != "PONG\r\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const n, size = 64, 512 << 10 // more than any socket takes
	for range n {
		if err := nc.Publish("x", make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	pause := time.NewTimer(4 * time.Second) // the pause itself
	<-pause.C
	if err := slow.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("MSG x 1 %d\r\n", size)
	for i := range n {
		line, err := in.ReadString('\n')
		for err == nil && line == "PING\r\n" {
			line, err = in.ReadString('\n')
		}
		if err != nil || line != head {
			t.Fatalf("message %d of %d: %q, %v", i, n, line, err)
		}
		if _, err := in.Discard(size + 2); err != nil {
			t.Fatalf("message %d of %d: %v", i, n, err)
		}
	}
}
