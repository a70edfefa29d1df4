package natsring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// Rendezvous lets the ranks of a world, in processes of their own, exchange
// small pieces of data through a server that their parent runs: for benchmarks
// and tests, where there is no coordinator.
type Rendezvous struct {
	nc    *nats.Conn
	world int

	mu       sync.Mutex
	meetings map[string]*meeting
}

// meeting is one exchange: complete when every rank has come.
type meeting struct {
	parts   [][]byte
	present int
	waiting []*nats.Msg
	done    chan struct{}
}

const meetSubject = "mochi.rendezvous"

// arrival is a rank that comes to a meeting, with what it brings.
type arrival struct {
	Meeting string `json:"meeting"`
	Rank    int    `json:"rank"`
	World   int    `json:"world"`
	Data    []byte `json:"data"`
}

// outcome is what it takes away: the data of all, by rank.
type outcome struct {
	Error string   `json:"error,omitempty"`
	Parts [][]byte `json:"parts"`
}

// NewRendezvous serves a world of ranks on s.
func NewRendezvous(s InProcess, world int) (*Rendezvous, error) {
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.Name("rendezvous"))
	if err != nil {
		return nil, fmt.Errorf("rendezvous: %w", err)
	}
	r := &Rendezvous{nc: nc, world: world, meetings: map[string]*meeting{}}
	if _, err := nc.Subscribe(meetSubject, r.arrive); err != nil {
		nc.Close()
		return nil, fmt.Errorf("rendezvous: %w", err)
	}
	if err := nc.Flush(); err != nil {
		nc.Close()
		return nil, fmt.Errorf("rendezvous: %w", err)
	}
	return r, nil
}

func (r *Rendezvous) meeting(name string) *meeting {
	m := r.meetings[name]
	if m == nil {
		m = &meeting{parts: make([][]byte, r.world), done: make(chan struct{})}
		r.meetings[name] = m
	}
	return m
}

// arrive handles one rank's request; the last one's answers all.
func (r *Rendezvous) arrive(msg *nats.Msg) {
	var a arrival
	if err := json.Unmarshal(msg.Data, &a); err != nil || a.Rank < 0 || a.Rank >= r.world || a.World != r.world {
		answer(outcome{Error: fmt.Sprintf("rank %d of %d does not belong to this world of %d", a.Rank, a.World, r.world)}, msg)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.meeting(a.Meeting)
	if m.parts[a.Rank] != nil {
		answer(outcome{Error: fmt.Sprintf("rank %d came to %q twice", a.Rank, a.Meeting)}, msg)
		return
	}
	m.parts[a.Rank] = append([]byte{}, a.Data...)
	m.waiting = append(m.waiting, msg)
	if m.present++; m.present == r.world {
		answer(outcome{Parts: m.parts}, m.waiting...)
		close(m.done)
	}
}

// answer replies to all; a rank that has gone does not miss it.
func answer(o outcome, to ...*nats.Msg) {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	for _, msg := range to {
		_ = msg.Respond(data)
	}
}

// Wait returns what the ranks brought to a meeting, by rank, once all have
// come.
func (r *Rendezvous) Wait(ctx context.Context, name string) ([][]byte, error) {
	r.mu.Lock()
	m := r.meeting(name)
	r.mu.Unlock()
	select {
	case <-m.done:
		return m.parts, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("rendezvous %q: %w", name, context.Cause(ctx))
	}
}

// Close sends the last answers and ends the service.
func (r *Rendezvous) Close() error {
	err := r.nc.FlushTimeout(flushWithin)
	r.nc.Close()
	return err
}

// Member is one rank's connection to a Rendezvous.
type Member struct {
	nc          *nats.Conn
	rank, world int
}

// JoinRendezvous connects a rank to the server at url.
func JoinRendezvous(url string, rank, world int) (*Member, error) {
	nc, err := nats.Connect(url, nats.Name(fmt.Sprintf("rank %d", rank)))
	if err != nil {
		return nil, fmt.Errorf("rendezvous at %s: %w", url, err)
	}
	return &Member{nc, rank, world}, nil
}

// Meet brings data to a meeting and returns everyone's, by rank, once all
// have come.
func (m *Member) Meet(ctx context.Context, name string, data []byte) ([][]byte, error) {
	request, err := json.Marshal(arrival{Meeting: name, Rank: m.rank, World: m.world, Data: data})
	if err != nil {
		return nil, err
	}
	reply, err := m.nc.RequestWithContext(ctx, meetSubject, request)
	if err != nil {
		return nil, fmt.Errorf("rendezvous %q: %w", name, err)
	}
	var o outcome
	if err := json.Unmarshal(reply.Data, &o); err != nil {
		return nil, fmt.Errorf("rendezvous %q: %w", name, err)
	}
	if o.Error != "" {
		return nil, errors.New("rendezvous: " + o.Error)
	}
	return o.Parts, nil
}

// Close ends the connection.
func (m *Member) Close() { m.nc.Close() }
