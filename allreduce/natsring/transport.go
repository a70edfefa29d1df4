package natsring

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"mochi/allreduce"
)

// transport is one rank's links in one round. Its link to the successor lives
// on out, the one from the predecessor on in.
type transport struct {
	id       allreduce.Identity
	in, out  *endpoint
	handlers allreduce.Handlers

	dataSubject, controlSubject    string     // the successor's, the predecessor's
	toSuccessor, toPredecessor     *nats.Conn // publish data, control
	fromPredecessor, fromSuccessor *nats.Conn // subscribe to data, control

	process        *Process         // nil: none
	lends, borrows *allreduce.Loans // nil: that neighbour is elsewhere

	mu      sync.RWMutex // held for reading while a handler runs
	stopped bool
	subs    []*nats.Subscription
	once    sync.Once
	closed  chan struct{}
	watch   sync.WaitGroup
}

// dial connects what the round needs.
func (t *transport) dial(ctx context.Context) error {
	for _, c := range []struct {
		conn    **nats.Conn
		at      *endpoint
		purpose purpose
	}{
		{&t.toSuccessor, t.out, forData},
		{&t.fromSuccessor, t.out, forInbox},
		{&t.fromPredecessor, t.in, forInbox},
		{&t.toPredecessor, t.in, forControl},
	} {
		nc, err := c.at.conn(ctx, c.purpose)
		if err != nil {
			return err
		}
		*c.conn = nc
	}
	return nil
}

// newTransport prepares the links of one round; dial connects them.
func newTransport(id allreduce.Identity, in, out *endpoint) *transport {
	t := &transport{id: id, in: in, out: out, closed: make(chan struct{})}
	t.dataSubject = t.subject("data", id.Successor())
	t.controlSubject = t.subject("control", id.Predecessor())
	return t
}

// meet finds out which neighbours are in the same process.
func (t *transport) meet(p *Process, peers []Peer) {
	t.process = p
	t.lends = p.open(t.link(t.id.Rank), member{t.id.Job, peers[t.id.Successor()].ID})
	t.borrows = p.open(t.link(t.id.Predecessor()), member{t.id.Job, peers[t.id.Predecessor()].ID})
}

// link is the link on which a rank lends.
func (t *transport) link(rank int) link { return link{t.id.Job, t.id.Round, rank} }

// Lends implements allreduce.Lender.
func (t *transport) Lends() *allreduce.Loans { return t.lends }

// Borrows implements allreduce.Lender.
func (t *transport) Borrows() *allreduce.Loans { return t.borrows }

func (t *transport) Identity() allreduce.Identity { return t.id }

// subject is where a rank receives; kind is data or control.
func (t *transport) subject(kind string, rank int) string {
	return fmt.Sprintf("mochi.%s.ring.%d.%d.%s", t.id.Job, t.id.Round, rank, kind)
}

func (t *transport) Start(h allreduce.Handlers) error {
	t.handlers = h
	if err := t.subscribe(t.fromPredecessor, t.subject("data", t.id.Rank), h.FromPredecessor); err != nil {
		return err
	}
	if err := t.subscribe(t.fromSuccessor, t.subject("control", t.id.Rank), h.FromSuccessor); err != nil {
		return err
	}
	t.watch.Go(t.watchConnections)
	// Until the server knows of a subscription, what is sent to it is lost.
	for _, nc := range []*nats.Conn{t.fromPredecessor, t.fromSuccessor} {
		if err := nc.FlushTimeout(flushWithin); err != nil {
			return fmt.Errorf("subscribe for round %d: %w", t.id.Round, err)
		}
	}
	return nil
}

// subscribe delivers a subject's frames. Credits bound what is in flight, so
// the client's own limits, which drop, are off.
func (t *transport) subscribe(nc *nats.Conn, subject string, deliver func(header, payload []byte)) error {
	var header [allreduce.HeaderLen]byte
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
		n, err := decodeHeader(header[:], m.Reply)
		if err != nil {
			n = 0 // not a frame: the receiver counts it as damaged
		}
		t.mu.RLock()
		defer t.mu.RUnlock()
		if !t.stopped {
			deliver(header[:n], m.Data)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	t.subs = append(t.subs, sub)
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return nil
}

// watchConnections reports lost servers. The predecessor's own means that the
// predecessor is gone; the one this rank publishes on, or the hub, is this
// rank's own trouble.
func (t *transport) watchConnections() {
	select {
	case <-t.out.dead:
		t.down(t.id.Rank, t.out.why)
	case <-t.in.dead:
		rank := t.id.Predecessor()
		if t.in.shared || errors.Is(t.in.why, errClosedHere) {
			rank = t.id.Rank
		}
		t.down(rank, t.in.why)
	case <-t.closed:
	}
}

func (t *transport) down(rank int, why error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if !t.stopped {
		t.handlers.Down(rank, why)
	}
}

// Send publishes a frame: the header as the reply subject, which nobody
// replies to and the server passes on as it is. A lost connection is no error
// here: it is reported by Down, after what had arrived before.
func (t *transport) Send(d allreduce.Direction, header, payload []byte) error {
	nc, subject := t.toSuccessor, t.dataSubject
	if d == allreduce.Backward {
		nc, subject = t.toPredecessor, t.controlSubject
	}
	err := nc.PublishRequest(subject, encodeHeader(header), payload)
	if err == nil || !nc.IsConnected() {
		return nil
	}
	return fmt.Errorf("publish to %s: %w", subject, err)
}

// Close unsubscribes and waits for handlers that are running.
func (t *transport) Close() error {
	var err error
	t.once.Do(func() {
		close(t.closed)
		t.mu.Lock()
		t.stopped = true
		t.mu.Unlock()
		for _, sub := range t.subs {
			if unsubErr := sub.Unsubscribe(); !errors.Is(unsubErr, nats.ErrConnectionClosed) && !errors.Is(unsubErr, nats.ErrBadSubscription) {
				err = errors.Join(err, unsubErr)
			}
		}
		if t.lends != nil {
			t.process.close(t.link(t.id.Rank))
		}
		if t.borrows != nil {
			t.process.close(t.link(t.id.Predecessor()))
		}
	})
	t.watch.Wait()
	return err
}

// encodeHeader writes a header in the letters a subject may have.
func encodeHeader(header []byte) string { return base64.RawURLEncoding.EncodeToString(header) }

// decodeHeader reads one into dst.
func decodeHeader(dst []byte, reply string) (int, error) {
	if len(reply) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return 0, fmt.Errorf("a header of %d letters", len(reply))
	}
	var letters [128]byte
	n := copy(letters[:], reply)
	return base64.RawURLEncoding.Decode(dst, letters[:n])
}
