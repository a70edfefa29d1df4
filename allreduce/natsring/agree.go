package natsring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce"
	"mochi/allreduce/direct"
)

// pathState is how a rank sends frames to one neighbour.
type pathState int32

const (
	undecided pathState = iota // not at all: what is sent is lost, as with a subscription that is not there yet
	overNATS
	overLink
)

// path is the way to one neighbour. It is decided once.
type path struct {
	state atomic.Int32
	link  *direct.Link // where the state is overLink
}

// The two ends of a link agree on a connection so: the successor asks, on the
// predecessor's server, and is told an address and a secret (offer); it connects, and
// either end uses the connection as soon as it is there. Where that does not work the
// successor says so, and both stay with NATS.

// wish is what the successor asks for, or reports.
type wish struct {
	Lane Lane   `json:"lane"`
	Why  string `json:"why,omitempty"` // of NATS: why not a connection
}

// offer is the answer.
type offer struct {
	Lane    Lane   `json:"lane"`
	Address string `json:"address,omitempty"`
	Secret  string `json:"secret,omitempty"`
	Why     string `json:"why,omitempty"` // of NATS
}

const (
	askFor   = time.Second           // how long an answer may take
	askAgain = 20 * time.Millisecond // after none, or a predecessor that is not there yet
)

// offering is the predecessor's side of one link.
type offering struct {
	mu     sync.Mutex
	offer  *offer // made at the first question
	forget func()
}

// agree begins to agree on those links that want a connection. It is part of Start.
func (t *transport) agree() error {
	if t.state(allreduce.Forward) == undecided {
		sub, err := t.fromSuccessor.Subscribe(t.subject("direct", t.id.Rank), t.answer)
		if err != nil {
			return fmt.Errorf("subscribe for the lane direct: %w", err)
		}
		t.subs = append(t.subs, sub)
	}
	if t.state(allreduce.Backward) == undecided {
		t.watch.Go(t.ask)
	}
	return nil
}

func (t *transport) state(d allreduce.Direction) pathState { return pathState(t.paths[d].state.Load()) }

// answer is the predecessor's answer to a wish.
func (t *transport) answer(m *nats.Msg) {
	var w wish
	if err := json.Unmarshal(m.Data, &w); err != nil {
		return // not from this program
	}
	o := t.offers.to(w, t)
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings always marshal
	}
	_ = m.Respond(data) // a successor that hears nothing asks again
}

func (g *offering) to(w wish, t *transport) offer {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.Lane != Direct {
		if g.forget != nil {
			g.forget()
		}
		t.settle(allreduce.Forward, nil, w.Why)
		return offer{Lane: NATS}
	}
	if g.offer != nil {
		return *g.offer
	}
	listener, address, err := t.node.listener()
	if err != nil {
		t.settle(allreduce.Forward, nil, err.Error())
		g.offer = &offer{Lane: NATS, Why: err.Error()}
		return *g.offer
	}
	t.mu.RLock() // so that nothing begins that Close does not wait for
	defer t.mu.RUnlock()
	if t.stopped {
		return offer{Lane: NATS}
	}
	secret, arrived, forget := listener.Expect()
	g.forget = forget
	g.offer = &offer{Lane: Direct, Address: address, Secret: secret.String()}
	t.watch.Go(func() {
		select {
		case conn := <-arrived:
			t.settle(allreduce.Forward, conn, "")
		case <-t.closed:
			forget()
		}
	})
	return *g.offer
}

// ask is the successor's side.
func (t *transport) ask() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	t.watch.Go(func() {
		select {
		case <-t.closed:
			stop()
		case <-ctx.Done():
		}
	})
	o, err := t.question(ctx, wish{Lane: Direct})
	if err != nil {
		return // closed
	}
	if o.Lane != Direct {
		t.settle(allreduce.Backward, nil, o.Why)
		return
	}
	conn, err := t.connect(ctx, o)
	if err == nil {
		t.settle(allreduce.Backward, conn, "")
		return
	}
	if ctx.Err() != nil {
		return
	}
	t.settle(allreduce.Backward, nil, err.Error())
	_, _ = t.question(ctx, wish{Lane: NATS, Why: err.Error()}) // until it is answered, or nobody wants to know
}

func (t *transport) connect(ctx context.Context, o offer) (net.Conn, error) {
	secret, err := direct.ParseSecret(o.Secret)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, direct.HelloTimeout)
	defer stop()
	return direct.Dial(ctx, o.Address, secret, t.node.dialled(t.peers[t.id.Predecessor()]))
}

// question asks until there is an answer.
func (t *transport) question(ctx context.Context, w wish) (o offer, err error) {
	data, err := json.Marshal(w)
	if err != nil {
		return o, err
	}
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		asking, stop := context.WithTimeout(ctx, askFor)
		m, err := t.toPredecessor.RequestWithContext(asking, t.subject("direct", t.id.Predecessor()), data)
		stop()
		if err == nil && json.Unmarshal(m.Data, &o) == nil {
			return o, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return o, context.Cause(ctx)
		}
	}
}

// settle decides how frames go to a neighbour: over conn, or over NATS where it is nil,
// and why.
func (t *transport) settle(d allreduce.Direction, conn net.Conn, why string) {
	rank, deliver := t.id.Successor(), t.handlers.FromSuccessor
	if d == allreduce.Backward {
		rank, deliver = t.id.Predecessor(), t.handlers.FromPredecessor
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.state(d) != undecided {
		if conn != nil {
			conn.Close()
		}
		return
	}
	log := t.node.o.Log.With("round", t.id.Round, "rank", t.id.Rank, "neighbour", t.peers[rank].ID)
	if conn == nil {
		t.paths[d].state.Store(int32(overNATS))
		log.Warn("ring lane nats instead of direct; is the port of its connections open?", "cause", why)
		return
	}
	link := direct.NewLink(conn, t.pool)
	t.paths[d].link = link
	t.paths[d].state.Store(int32(overLink))
	log.Debug("ring lane direct", "address", conn.RemoteAddr())
	go func() { // ends with the link, which close waits for
		err := link.Receive(func(header, payload []byte) {
			t.mu.RLock()
			defer t.mu.RUnlock()
			if !t.stopped {
				deliver(header, payload)
			}
		})
		t.down(rank, fmt.Errorf("its connection ended: %w", err))
	}()
}

// sendOver sends a frame over a link of its own. That the connection is lost is no error
// here: the reader tells it, after what had arrived before.
func (t *transport) sendOver(l *direct.Link, header, payload []byte) error {
	err := l.Send(header, payload)
	if errors.Is(err, os.ErrDeadlineExceeded) { // the reader would not notice
		return fmt.Errorf("it takes nothing from its connection: %w", err)
	}
	return nil
}

// Hurry implements allreduce.Hurrier.
func (t *transport) Hurry() {
	for d := range t.paths {
		if t.state(allreduce.Direction(d)) == overLink {
			t.paths[d].link.Hurry()
		}
	}
}

// closeLinks ends the connections in the background: the neighbour may take a second.
func (t *transport) closeLinks() {
	for d := range t.paths {
		if t.state(allreduce.Direction(d)) == overLink {
			t.node.dropped.Go(t.paths[d].link.Close)
		}
	}
}
