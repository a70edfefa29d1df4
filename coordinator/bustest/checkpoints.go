package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"mochi/coordinator/protocol"
)

// Store is where checkpoints go. Its zero value takes all and has none.
type Store struct {
	Fail  error                               // what Save answers
	Files map[string][]byte                   // what Open finds
	Want  func(from string, step int64) error // what Wants answers; nil: all is wanted

	mu     sync.Mutex
	saved  map[int64][]byte
	saving int           // Saves that have not returned
	most   int           // of those at a time
	hold   chan struct{} // Save waits for it after it has read all; nil: it does not
}

// Wants says whether a checkpoint is.
func (s *Store) Wants(from string, step int64) error {
	if s.Want == nil {
		return nil
	}
	return s.Want(from, step)
}

// Save reads a checkpoint to its end.
func (s *Store) Save(_ context.Context, _ string, step int64, r io.Reader) error {
	s.mu.Lock()
	s.saving++
	s.most = max(s.most, s.saving)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.saving--
		s.mu.Unlock()
	}()
	data, err := io.ReadAll(r)
	if s.hold != nil {
		<-s.hold
	}
	if err == nil {
		err = s.Fail
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved == nil {
		s.saved = map[int64][]byte{}
	}
	s.saved[step] = data
	return nil
}

// Saved is the checkpoint of a step, nil when none was saved.
func (s *Store) Saved(step int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved[step]
}

// Open finds a file.
func (s *Store) Open(name string) (io.ReadSeekCloser, error) {
	data, there := s.Files[name]
	if !there {
		return nil, fmt.Errorf("no checkpoint %s", name)
	}
	return file{bytes.NewReader(data)}, nil
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

// state is a checkpoint of so many bytes: more than a message holds, and no
// multiple of anything.
func state(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	return data
}

func upload(f Fixture) error {
	s := &Store{}
	_, link, err := pair(f, s, "a")
	if err != nil {
		return err
	}
	for step, n := range []int{3<<20 + 17, 1, 4096} {
		if err := link.Upload(context.Background(), int64(step), state(n)); err != nil {
			return err
		}
		if !bytes.Equal(s.Saved(int64(step)), state(n)) {
			return fmt.Errorf("%d bytes became %d others", n, len(s.Saved(int64(step))))
		}
	}
	return nil
}

// tells says whether a person who reads an error is told of something.
func tells(err error, what string) bool { return strings.Contains(fmt.Sprint(err), what) }

func refused(f Fixture) error {
	_, link, err := pair(f, &Store{Fail: errors.New("no room for it")}, "a")
	if err != nil {
		return err
	}
	if err := link.Upload(context.Background(), 1, state(2<<20)); !tells(err, "no room for it") {
		return fmt.Errorf("a checkpoint that could not be stored: %w", err)
	}
	return nil
}

func download(f Fixture) error {
	want := state(2<<20 + 5)
	_, link, err := pair(f, &Store{Files: map[string][]byte{"it": want}}, "a")
	if err != nil {
		return err
	}
	if got, err := link.Download(context.Background(), "it"); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes became %d: %w", len(want), len(got), err)
	}
	if _, err := link.Download(context.Background(), "another"); !tells(err, "no checkpoint another") {
		return fmt.Errorf("a checkpoint that is not there: %w", err)
	}
	return nil
}

// oneAtATime sends a second checkpoint while the first is being written.
func oneAtATime(f Fixture) error {
	s := &Store{hold: make(chan struct{})}
	bus, first, err := pair(f, s, "a")
	if err != nil {
		return err
	}
	second, err := f.Connect("b")
	if err == nil {
		err = meet(bus, second, "b")
	}
	if err != nil {
		return err
	}
	// Whether the first is given up for the second is the bus's choice.
	done := make(chan bool, 2)
	go func() { done <- first.Upload(context.Background(), 1, state(5000)) == nil }()
	wait := time.NewTimer(500 * time.Millisecond)
	<-wait.C
	go func() { done <- second.Upload(context.Background(), 2, state(6000)) == nil }()
	wait.Reset(500 * time.Millisecond)
	<-wait.C
	close(s.hold)
	for range 2 {
		select {
		case <-done:
		case <-time.After(patience):
			return errors.New("an upload does not end")
		}
	}
	s.mu.Lock()
	most := s.most
	s.mu.Unlock()
	switch {
	case most != 1:
		return fmt.Errorf("%d checkpoints were stored at a time", most)
	case !bytes.Equal(s.Saved(2), state(6000)):
		return errors.New("the second checkpoint was not stored")
	}
	return nil
}

// unwanted is an upload that nobody asked for, while another is being stored.
func unwanted(f Fixture) error {
	s := &Store{hold: make(chan struct{}), Want: func(from string, _ int64) error {
		if from == "b" {
			return errors.New("nobody has asked for it")
		}
		return nil
	}}
	bus, first, err := pair(f, s, "a")
	if err != nil {
		return err
	}
	second, err := f.Connect("b")
	if err == nil {
		err = meet(bus, second, "b")
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- first.Upload(context.Background(), 1, state(5000)) }()
	wait := time.NewTimer(500 * time.Millisecond)
	<-wait.C
	if err := second.Upload(context.Background(), 2, state(6000)); !tells(err, "nobody has asked") {
		return fmt.Errorf("an upload that nobody asked for: %w", err)
	}
	close(s.hold)
	if err := <-done; err != nil || !bytes.Equal(s.Saved(1), state(5000)) {
		return fmt.Errorf("the one that was asked for: %w", err)
	}
	return nil
}

// notYet is an upload of which it is known late that it is wanted.
func notYet(f Fixture) error {
	known := make(chan struct{})
	s := &Store{Want: func(string, int64) error {
		select {
		case <-known:
			return nil
		default:
			return protocol.ErrNotYet
		}
	}}
	_, link, err := pair(f, s, "a")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- link.Upload(context.Background(), 1, state(5000)) }()
	select {
	case err := <-done:
		return fmt.Errorf("an upload ended before it was wanted: %w", err)
	case <-time.After(3 * time.Second / 2):
	}
	close(known)
	if err := <-done; err != nil || !bytes.Equal(s.Saved(1), state(5000)) {
		return fmt.Errorf("an upload that waited: %w", err)
	}
	return nil
}

func uploadAgain(f Fixture) error {
	_, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	f.Stop()
	done := make(chan error, 1)
	go func() { done <- link.Upload(context.Background(), 5, state(2<<20)) }()
	wait := time.NewTimer(time.Second)
	<-wait.C
	s := &Store{}
	if _, err := f.Start(s); err != nil {
		return err
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-time.After(patience):
		return errors.New("the upload does not end")
	}
	if !bytes.Equal(s.Saved(5), state(2<<20)) {
		return errors.New("the next coordinator has another checkpoint")
	}
	return nil
}
