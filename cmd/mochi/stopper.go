package main

import (
	"os"
	"sync"
)

// stopper turns signals into an orderly stop: the first asks for it, the
// second ends the process at once.
type stopper struct {
	mu      sync.Mutex
	signals int
	ask     func() // what the first signal does
	say     func(format string, args ...any)
	exit    func(status int) // ends the process
	done    chan struct{}
}

// newStopper watches signals until end. Until orderly says better, the first
// signal calls cancel.
func newStopper(signals <-chan os.Signal, say func(format string, args ...any), cancel func()) *stopper {
	s := &stopper{ask: cancel, say: say, exit: os.Exit, done: make(chan struct{})}
	go func() {
		for {
			select {
			case <-s.done:
				return
			case <-signals:
				s.signal()
			}
		}
	}()
	return s
}

func (s *stopper) signal() {
	s.mu.Lock()
	s.signals++
	n, ask := s.signals, s.ask
	s.mu.Unlock()
	if n > 1 {
		s.say("stopped at once")
		s.exit(130)
		return
	}
	s.say("finishing this step and writing a checkpoint; once more stops at once")
	ask()
}

// orderly replaces what the first signal does; when it has come already, it
// is done now.
func (s *stopper) orderly(ask func()) {
	s.mu.Lock()
	s.ask = ask
	late := s.signals > 0
	s.mu.Unlock()
	if late {
		ask()
	}
}

// asked says whether a signal has come.
func (s *stopper) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signals > 0
}

func (s *stopper) end() { close(s.done) }
