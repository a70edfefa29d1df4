// Package bustest is what a bus between coordinator and replicas is tested with:
// the bus over NATS (package natsbus), and the simulated one (package
// clustertest), so that what is found with the one holds for the other.
//
// A bus delivers in order, or not at all where a connection breaks; what is said
// to it while there is no connection it keeps for the next one; it says which
// client is gone. A Case returns an error that says what was otherwise. It waits
// with timers, so that it runs on virtual time too.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/replica"
)

// Fixture is a bus under test. One goroutine calls it.
type Fixture interface {
	// Start starts the message server and the coordinator's end, which serves
	// checkpoints by s.
	Start(s *Store) (coordinator.Bus, error)
	// Stop ends both as a crash does.
	Stop()
	// Connect makes the end of a replica, which connects again by itself until
	// the test ends.
	Connect(id string) (replica.Link, error)
	// Close ends a replica in order: what it has sent still arrives.
	Close(id string)
	// Break resets the connection of a replica.
	Break(id string)
}

// Case is one thing that every bus does.
type Case struct {
	Name string
	Run  func(f Fixture) error
}

// Cases are all of them. Each wants a fixture of its own.
func Cases() []Case {
	return []Case{
		{"messages arrive whole and in order", inOrder},
		{"what nobody reads waits", backlog},
		{"a replica that is not there hears nothing, and nobody minds", nobody},
		{"what is sent to several arrives at each as it was", several},
		{"a message that is too large is refused, and the next one arrives", tooLarge},
		{"the coordinator is told who closes", closes},
		{"the coordinator is told whose connection breaks", breaks},
		{"what is sent without a coordinator arrives at the next one", kept},
		{"nothing arrives twice when a connection breaks", once},
		{"a checkpoint arrives as it was sent", upload},
		{"a checkpoint that cannot be stored is the sender's error", refused},
		{"a checkpoint is read as it is stored", download},
		{"checkpoints are stored one at a time", oneAtATime},
		{"a checkpoint that nobody asked for takes no place", unwanted},
		{"a checkpoint that may be wanted is sent again", notYet},
		{"an upload survives the coordinator", uploadAgain},
	}
}

// patience bounds every wait.
const patience = 30 * time.Second

// pair is a coordinator and a replica that hear each other.
func pair(f Fixture, s *Store, id string) (coordinator.Bus, replica.Link, error) {
	bus, err := f.Start(s)
	if err != nil {
		return nil, nil, err
	}
	link, err := f.Connect(id)
	if err != nil {
		return nil, nil, err
	}
	return bus, link, meet(bus, link, id)
}

// meet says Leaving until it is heard, and Again until that is.
func meet(bus coordinator.Bus, link replica.Link, id string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err := link.Send(context.Background(), protocol.Message{Leaving: &protocol.Leaving{Reason: "test"}}); err != nil {
			return err
		}
		if err := bus.Send(id, protocol.Message{Again: &protocol.Again{Instance: "test"}}); err != nil {
			return err
		}
		up, down := false, false
		for wait := time.After(200 * time.Millisecond); !up || !down; {
			select {
			case m := <-bus.Messages():
				up = up || m.Leaving != nil
			case m := <-link.Messages():
				down = down || m.Again != nil
			case <-wait:
				up, down = true, true
				wait = nil
			}
			if wait == nil {
				break
			}
			if up && down {
				return nil
			}
		}
	}
	return fmt.Errorf("%s and the coordinator do not hear each other", id)
}

// up is the next message of a replica that is an Applied, down the next Commit.
func up(bus coordinator.Bus) (step int64, from string, err error) {
	for deadline := time.After(patience); ; {
		select {
		case m, open := <-bus.Messages():
			if !open {
				return 0, "", errors.New("the bus was closed")
			}
			if m.Applied != nil {
				return m.Applied.Step, m.From, nil
			}
		case <-deadline:
			return 0, "", errors.New("no message arrives at the coordinator")
		}
	}
}

func down(link replica.Link) (step int64, err error) {
	for deadline := time.After(patience); ; {
		select {
		case m, open := <-link.Messages():
			if !open {
				return 0, errors.New("the link was closed")
			}
			if m.Commit != nil {
				return m.Commit.Step, nil
			}
		case <-deadline:
			return 0, errors.New("no message arrives at the replica")
		}
	}
}

func applied(step int64) protocol.Message {
	return protocol.Message{Applied: &protocol.Applied{Step: step}}
}

func commit(step int64) protocol.Message {
	return protocol.Message{Commit: &protocol.Commit{Step: step}}
}

func inOrder(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	const n = 200
	for i := range int64(n) {
		if err := errors.Join(link.Send(context.Background(), applied(i)), bus.Send("a", commit(i))); err != nil {
			return err
		}
	}
	for i := range int64(n) {
		if step, from, err := up(bus); err != nil || step != i || from != "a" {
			return fmt.Errorf("message %d is %d of %q: %w", i, step, from, err)
		}
		if step, err := down(link); err != nil || step != i {
			return fmt.Errorf("commit %d is %d: %w", i, step, err)
		}
	}
	return nil
}

// backlog is more than a NATS client's channel holds.
func backlog(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	const n = 70_000
	for i := range int64(n) {
		if err := link.Send(context.Background(), applied(i)); err != nil {
			return err
		}
	}
	wait := time.NewTimer(2 * time.Second) // as long as it may take all of them to be on this side
	<-wait.C
	for i := range int64(n) {
		if step, _, err := up(bus); err != nil || step != i {
			return fmt.Errorf("message %d of %d that waited is %d: %w", i, n, step, err)
		}
	}
	return nil
}

func nobody(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	if err := errors.Join(bus.Send("b", commit(1)), bus.Send("a", commit(2))); err != nil {
		return err
	}
	if step, err := down(link); err != nil || step != 2 {
		return fmt.Errorf("a was sent commit 2 and got %d: %w", step, err)
	}
	return nil
}

// several is one commit to two replicas, again and again, and in two terms.
func several(f Fixture) error {
	bus, a, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	b, err := f.Connect("b")
	if err != nil {
		return err
	}
	if err := meet(bus, b, "b"); err != nil {
		return err
	}
	for i := range int64(10) {
		m := commit(i)
		for term := range uint64(2) {
			m.Term = term
			if err := errors.Join(bus.Send("a", m), bus.Send("b", m)); err != nil {
				return err
			}
		}
	}
	for i := range int64(20) {
		for id, link := range map[string]replica.Link{"a": a, "b": b} {
			for {
				m, open := <-link.Messages()
				if !open {
					return errors.New("the link was closed")
				}
				if m.Commit == nil {
					continue
				}
				if m.Commit.Step != i/2 || m.Term != uint64(i%2) {
					return fmt.Errorf("message %d to %s is commit %d in term %d", i, id, m.Commit.Step, m.Term)
				}
				break
			}
		}
	}
	return nil
}

func tooLarge(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for text.Len() < 4<<20 {
		fmt.Fprintf(&text, "%016x", r.Uint64()) // nothing makes it shorter than half
	}
	huge := text.String()
	if link.Send(context.Background(), protocol.Message{Failed: &protocol.Failed{Error: huge}}) == nil {
		return errors.New("a replica may send 4 MiB")
	}
	if bus.Send("a", protocol.Message{Stop: &protocol.Stop{Reason: huge}}) == nil {
		return errors.New("the coordinator may send 4 MiB")
	}
	if err := errors.Join(link.Send(context.Background(), applied(1)), bus.Send("a", commit(2))); err != nil {
		return err
	}
	if step, _, err := up(bus); err != nil || step != 1 {
		return fmt.Errorf("after a message that was too large comes %d: %w", step, err)
	}
	if step, err := down(link); err != nil || step != 2 {
		return fmt.Errorf("after a message that was too large comes commit %d: %w", step, err)
	}
	return nil
}

// lost waits until the coordinator is told that a replica is gone.
func lost(bus coordinator.Bus, id string) error {
	for deadline := time.After(patience); ; {
		select {
		case gone := <-bus.Lost():
			if gone == id {
				return nil
			}
		case <-bus.Messages():
		case <-deadline:
			return fmt.Errorf("the coordinator is not told that %s is gone", id)
		}
	}
}

func closes(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	if err := link.Send(context.Background(), applied(7)); err != nil {
		return err
	}
	f.Close("a")
	if step, _, err := up(bus); err != nil || step != 7 {
		return fmt.Errorf("the last word is %d: %w", step, err)
	}
	return lost(bus, "a")
}

func breaks(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	f.Break("a")
	return errors.Join(lost(bus, "a"), meet(bus, link, "a"))
}

func kept(f Fixture) error {
	_, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	f.Stop()
	wait := time.NewTimer(time.Second) // until the client has noticed
	<-wait.C
	const n = 50
	for i := range int64(n) {
		if err := link.Send(context.Background(), applied(i)); err != nil {
			return err
		}
	}
	bus, err := f.Start(&Store{})
	if err != nil {
		return err
	}
	for i := range int64(n) {
		if step, _, err := up(bus); err != nil || step != i {
			return fmt.Errorf("message %d of those kept is %d: %w", i, step, err)
		}
	}
	return nil
}

func once(f Fixture) error {
	bus, link, err := pair(f, &Store{}, "a")
	if err != nil {
		return err
	}
	const n = 3000
	for i := range int64(n) {
		if i == n/2 {
			f.Break("a")
		}
		if err := link.Send(context.Background(), applied(i)); err != nil {
			return err
		}
	}
	if err := link.Send(context.Background(), applied(n)); err != nil {
		return err
	}
	for last := int64(-1); last < n; {
		step, _, err := up(bus)
		if err != nil {
			return fmt.Errorf("after message %d: %w", last, err)
		}
		if step <= last {
			return fmt.Errorf("message %d comes after %d", step, last)
		}
		last = step
	}
	return nil
}
