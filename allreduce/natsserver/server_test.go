package natsserver_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"mochi/allreduce/natsserver"
)

func start(t *testing.T, o natsserver.Options) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func Example() {
	s, err := natsserver.Start(natsserver.Options{}) // for this process only
	if err != nil {
		panic(err)
	}
	defer s.Shutdown()
	conn, err := s.InProcessConn()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	hello := make([]byte, 4)
	if _, err := conn.Read(hello); err != nil {
		panic(err)
	}
	fmt.Printf("%s %q %d\n", hello, s.URL(), s.Port())
	// Output: INFO "" 0
}

// What the server would only log is an error that callers can tell apart.
func TestRefusals(t *testing.T) {
	taken := start(t, natsserver.Options{Listen: "127.0.0.1:0"})
	address := strings.TrimPrefix(taken.URL(), "nats://")
	if want := fmt.Sprintf("127.0.0.1:%d", taken.Port()); address != want {
		t.Fatalf("URL %s, port %d", taken.URL(), taken.Port())
	}
	dir := t.TempDir()
	first := start(t, natsserver.Options{StoreDir: dir, Log: slog.New(slog.DiscardHandler)})
	for _, c := range []struct {
		o    natsserver.Options
		want error
	}{
		{natsserver.Options{Listen: address}, syscall.EADDRINUSE},
		{natsserver.Options{StoreDir: dir}, natsserver.ErrLocked},
		{natsserver.Options{StoreDir: "/dev/null/x"}, syscall.ENOTDIR},
	} {
		if s, err := natsserver.Start(c.o); !errors.Is(err, c.want) {
			if err == nil {
				s.Shutdown()
			}
			t.Errorf("%+v: error %v, want %v", c.o, err, c.want)
		}
	}
	first.Shutdown()
	start(t, natsserver.Options{StoreDir: dir}).Shutdown() // free again
}

func TestMonitor(t *testing.T) {
	if user, password, subject := start(t, natsserver.Options{}).Monitor(); user+password+subject != "" {
		t.Errorf("a server without a monitor has %q, %q, %q", user, password, subject)
	}
	if user, password, subject := start(t, natsserver.Options{Monitor: true}).Monitor(); user == "" || password == "" || subject != "$SYS.ACCOUNT.$G.DISCONNECT" {
		t.Errorf("a server with one has %q, %q, %q", user, password, subject)
	}
}

func TestIsToken(t *testing.T) {
	for name, want := range map[string]bool{"run-1_B": true, "": false, "a.b": false, "a b": false, "*": false, "ä": false} {
		if natsserver.IsToken(name) != want {
			t.Errorf("IsToken(%q) is %v", name, !want)
		}
	}
}
