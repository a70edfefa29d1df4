package main

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// TestStandbyOfAnotherBuild: it is told at once, not when it leads and sends all replicas
// away. What a leader of an earlier build does not say is not compared.
func TestStandbyOfAnotherBuild(t *testing.T) {
	s := newStandbys()
	s.begin("a")
	answer := s.hear(protocol.StandingBy{Name: "b"})
	if err := otherBuild(answer, engines.BuildIdentity()); err != nil {
		t.Error(err)
	}
	err := otherBuild(answer, "0123456789abcdef")
	if !errors.As(err, new(cli.UsageError)) || !strings.Contains(err.Error(), "a leads") || !strings.Contains(err.Error(), "0123456789abcdef") {
		t.Errorf("a standby of another build hears %v", err)
	}
	answer.Binary = ""
	if err := otherBuild(answer, "0123456789abcdef"); err != nil {
		t.Error(err)
	}
}

// TestWhatStandbysCover: the log keeps what the checkpoint of each that was heard lately
// does not cover; one that is away for long holds nobody up.
func TestWhatStandbysCover(t *testing.T) {
	s := newStandbys()
	s.begin("a")
	if got := s.covered(); got != math.MaxInt64 {
		t.Errorf("nobody was heard, and the log is kept from %d on", got)
	}
	if a := s.hear(protocol.StandingBy{Name: "b", Checkpoint: 40}); a.Leader != "a" || a.Config != "" {
		t.Errorf("%+v", a)
	}
	s.agreed("text")
	if a := s.hear(protocol.StandingBy{Name: "c"}); a.Config != "text" {
		t.Errorf("%+v", a)
	}
	if got := s.covered(); got != 0 {
		t.Errorf("covered %d, and c has no checkpoint", got)
	}
	s.last["c"] = standbyHeard{s.last["c"].StandingBy, time.Now().Add(-2 * awayAfter)}
	if got := s.covered(); got != 40 {
		t.Errorf("covered %d, want b's 40", got)
	}
	s.begin("a")
	if _, ok := s.of("b"); ok {
		t.Error("what was heard in an earlier leadership counts")
	}
}

// TestStrangers: who asks one that stands by gets a line that says how the group
// stands; a listener that says something else, or nothing, is passed over.
func TestStrangers(t *testing.T) {
	serve := func(text string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if text == "" {
					continue // it says nothing, and holds the connection
				}
				_, _ = c.Write([]byte(text)) // whoever asked may have gone
				c.Close()
			}
		}()
		return l.Addr().String()
	}
	ask := func(within time.Duration, addresses ...string) (protocol.GroupState, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return natsbus.AskGroup(ctx, addresses, nil)
	}
	silent, foreign := serve(""), serve("SSH-2.0-OpenSSH\r\n")
	endless := serve(natsbus.StandbyLine + strings.Repeat("x", 1<<20))
	broken := serve(natsbus.StandbyLine + "{\r\n")
	good := serve(natsbus.StandbyLine + `{"leader":"b","since":"now","members":[{"name":"a"}]}` + "\r\n")
	state, err := ask(time.Minute, silent, foreign, endless, broken, good)
	if err != nil || state.Leader != "b" || len(state.Members) != 1 {
		t.Errorf("%+v, %v", state, err)
	}
	if _, err := ask(time.Minute, foreign, endless, broken); err == nil {
		t.Error("strangers were taken for a group")
	}
	if _, err := ask(50*time.Millisecond, silent); err == nil {
		t.Error("silence was taken for an answer")
	}
}

// TestSilentStrangers: who connects to one that stands by and says nothing, not even the
// beginning of TLS, holds up nobody.
func TestSilentStrangers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- answerEach(l, func(c net.Conn) {
			_, _ = io.ReadAll(c)
			_, _ = c.Write([]byte("answer"))
			c.Close()
		})
	}()
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	answered := func(c *net.TCPConn) string {
		_ = c.CloseWrite()
		said, _ := io.ReadAll(c)
		return string(said)
	}
	silent := []*net.TCPConn{dial()}
	if got := answered(dial()); got != "answer" {
		t.Errorf("beside a silent one: %q", got)
	}
	for range strangersAtOnce { // one more than there is room for
		silent = append(silent, dial())
	}
	if got := answered(dial()); got != "" {
		t.Errorf("beside as many as are answered at a time: %q", got)
	}
	l.Close()
	for _, c := range silent {
		c.Close()
	}
	if err := <-ended; err == nil {
		t.Error("the listener is closed")
	}
}
