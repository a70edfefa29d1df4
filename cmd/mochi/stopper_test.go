package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The first signal asks for an orderly stop, a second ends the process, unless it comes
// so soon that it is the same.
func TestTwoSignals(t *testing.T) {
	signals := make(chan os.Signal)
	asked, ended, said := make(chan string, 2), make(chan int, 1), make(chan string, 2)
	s := newStopper(signals, func(text string, args ...any) { said <- fmt.Sprintf(text, args...) }, finishing, func(os.Signal) { asked <- "cancelled" })
	defer s.end()
	s.exit = func(status int) { ended <- status }
	const echoes = 5 // of the first, from whoever passes it on
	came := 0
	s.now = func() time.Time {
		came++
		if came <= 1+echoes {
			return time.Unix(0, int64(came))
		}
		return time.Unix(0, 1).Add(oneCall)
	}
	if s.asked() {
		t.Error("asked before any signal")
	}
	s.orderly(func() { asked <- "in order" })
	signals <- os.Interrupt
	if got := await(t, asked); got != "in order" || !s.asked() {
		t.Errorf("the first signal: %s", got)
	}
	for range echoes {
		signals <- os.Interrupt
	}
	if len(ended) > 0 {
		t.Error("one Ctrl-C that came several times ended it at once")
	}
	signals <- os.Interrupt
	if got := await(t, ended); got != 130 {
		t.Errorf("the second signal: status %d", got)
	}
	if first, second := await(t, said), await(t, said); !strings.Contains(first, "once more stops at once") || second != "stopped at once" {
		t.Errorf("said %q and %q", first, second)
	}
}

// A signal that comes before the coordinator is there stops it when it is.
func TestEarlySignal(t *testing.T) {
	signals := make(chan os.Signal)
	asked := make(chan string, 2)
	s := newStopper(signals, func(string, ...any) {}, finishing, func(os.Signal) { asked <- "cancelled" })
	defer s.end()
	signals <- os.Interrupt
	if got := await(t, asked); got != "cancelled" {
		t.Error(got)
	}
	s.orderly(func() { asked <- "in order" })
	if got := await(t, asked); got != "in order" {
		t.Error(got)
	}
}

func await[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}
