package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// oneCall is how close together signals are one call: a terminal, a shell and a
// supervisor may each pass on the same Ctrl-C, and nobody presses it twice so fast.
const oneCall = 300 * time.Millisecond

// stopper turns signals into an orderly stop: the first asks for it, the
// second ends the process at once.
type stopper struct {
	mu    sync.Mutex
	first os.Signal            // the one that asked; nil until it has come
	last  time.Time            // when a signal that counts came last
	ask   func(s os.Signal)    // what it does
	text  string               // what is said then
	say   func(string, ...any) // to the user
	exit  func(status int)     // ends the process
	now   func() time.Time
	done  chan struct{}
}

// finishing is what commands say that write a checkpoint before they stop.
const finishing = "finishing this step and writing a checkpoint; once more stops at once"

// stopOnSignals watches SIGINT and SIGTERM until end is called. Until orderly
// says better, the first of them says text and calls ask.
func stopOnSignals(say func(format string, args ...any), text string, ask func(s os.Signal)) (s *stopper, end func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	s = newStopper(signals, say, text, ask)
	return s, func() {
		signal.Stop(signals)
		s.end()
	}
}

func newStopper(signals <-chan os.Signal, say func(format string, args ...any), text string, ask func(s os.Signal)) *stopper {
	s := &stopper{ask: ask, text: text, say: say, exit: os.Exit, now: time.Now, done: make(chan struct{})}
	go func() {
		for {
			select {
			case <-s.done:
				return
			case got := <-signals:
				s.signal(got)
			}
		}
	}()
	return s
}

func (s *stopper) signal(got os.Signal) {
	s.mu.Lock()
	again, ask, now := s.first != nil, s.ask, s.now()
	echo := again && now.Sub(s.last) < oneCall
	if !again {
		s.first = got
	}
	if !echo {
		s.last = now
	}
	s.mu.Unlock()
	if echo {
		return
	}
	if again {
		s.say("stopped at once")
		s.exit(130)
		return
	}
	s.say("%s", s.text)
	ask(got)
}

// orderly replaces what the first signal does; when it has come already, it
// is done now.
func (s *stopper) orderly(ask func()) {
	s.mu.Lock()
	s.ask = func(os.Signal) { ask() }
	late := s.first != nil
	s.mu.Unlock()
	if late {
		ask()
	}
}

// asked says whether a signal has come.
func (s *stopper) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first != nil
}

// interrupted says whether that was SIGINT, as of Ctrl-C.
func (s *stopper) interrupted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first == os.Interrupt
}

func (s *stopper) end() { close(s.done) }
