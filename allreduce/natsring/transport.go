package natsring

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"unsafe"

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

	pool    *pool
	outbox  outbox     // of data
	letters [2]letters // of other frames, by direction

	node  *Node
	peers []Peer

	paths  [2]path  // to the neighbours, by direction
	offers offering // of a connection, to the successor

	key []byte // of the round, nil: none

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
	t.outbox.tap = t.out.tap(forData)
	return nil
}

// newTransport prepares the links of one round; dial connects them.
func newTransport(id allreduce.Identity, in, out *endpoint, p *pool) *transport {
	t := &transport{id: id, in: in, out: out, pool: p, closed: make(chan struct{})}
	t.dataSubject = t.subject("data", id.Successor())
	t.outbox.subject = t.dataSubject
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

// Key implements allreduce.Keyed.
func (t *transport) Key() []byte { return t.key }

func (t *transport) Identity() allreduce.Identity { return t.id }

// subject is where a rank receives; kind is data or control.
func (t *transport) subject(kind string, rank int) string {
	return fmt.Sprintf("mochi.%s.ring.%d.%d.%s", t.id.Job, t.id.Round, rank, kind)
}

func (t *transport) Start(h allreduce.Handlers) error {
	t.handlers = h
	data := t.subject("data", t.id.Rank)
	t.in.tap(forInbox).take(data, t.deliverer(h.FromPredecessor))
	if err := t.subscribe(t.fromPredecessor, data, h.FromPredecessor); err != nil {
		return err
	}
	control := t.subject("control", t.id.Rank)
	t.out.tap(forInbox).take(control, t.deliverer(h.FromSuccessor))
	if err := t.subscribe(t.fromSuccessor, control, h.FromSuccessor); err != nil {
		return err
	}
	if err := t.agree(); err != nil {
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
	receive := t.deliverer(deliver)
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) { receive([]byte(m.Reply), m.Data) })
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	t.subs = append(t.subs, sub)
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return nil
}

// deliverer makes frames of messages, whose reply is the frame's header. It is for one
// caller at a time.
func (t *transport) deliverer(deliver func(header, payload []byte)) func(reply, payload []byte) {
	header := new([allreduce.HeaderLen]byte)
	return func(reply, payload []byte) {
		n, err := decodeHeader(header[:], reply)
		if err != nil {
			n = 0 // not a frame: the receiver counts it as damaged
		}
		t.mu.RLock()
		defer t.mu.RUnlock()
		if !t.stopped {
			deliver(header[:n], payload)
		}
	}
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
	switch t.state(d) {
	case undecided:
		return nil
	case overLink:
		return t.sendOver(t.paths[d].link, header, payload)
	}
	nc, subject := t.toSuccessor, t.dataSubject
	if d == allreduce.Backward {
		nc, subject = t.toPredecessor, t.controlSubject
	}
	l := &t.letters[d]
	l.mu.Lock()
	err := nc.PublishRequest(subject, l.encode(header), payload)
	l.mu.Unlock()
	if err == nil || !nc.IsConnected() {
		return nil
	}
	return fmt.Errorf("publish to %s: %w", subject, err)
}

// Room implements allreduce.Filler.
func (t *transport) Room(n int) []byte {
	if t.state(allreduce.Forward) != overNATS {
		return nil // a link sends from the vector itself
	}
	return t.outbox.room(n)
}

// SendFilled implements allreduce.Filler.
func (t *transport) SendFilled(header []byte) error {
	err := t.outbox.send(header)
	if err == nil || !t.toSuccessor.IsConnected() {
		return nil // see Send
	}
	return fmt.Errorf("publish to %s: %w", t.dataSubject, err)
}

// Recycle implements allreduce.Recycler.
func (t *transport) Recycle(payload []byte) { t.pool.put(payload) }

// Close unsubscribes and waits for handlers that are running.
func (t *transport) Close() error {
	var err error
	t.once.Do(func() {
		close(t.closed)
		t.mu.Lock()
		t.stopped = true
		t.mu.Unlock()
		t.in.tap(forInbox).take(t.subject("data", t.id.Rank), nil)
		t.out.tap(forInbox).take(t.subject("control", t.id.Rank), nil)
		for _, sub := range t.subs {
			if unsubErr := sub.Unsubscribe(); !errors.Is(unsubErr, nats.ErrConnectionClosed) && !errors.Is(unsubErr, nats.ErrBadSubscription) {
				err = errors.Join(err, unsubErr)
			}
		}
		t.closeLinks()
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

// letters is a header in the letters that a subject may have.
type letters struct {
	mu     sync.Mutex
	buffer [(allreduce.HeaderLen*8 + 5) / 6]byte
}

// encode writes a header. The string is good until the next one: nats.go has copied it
// when it returns.
func (l *letters) encode(header []byte) string {
	base64.RawURLEncoding.Encode(l.buffer[:], header)
	return unsafe.String(&l.buffer[0], len(l.buffer))
}

// decodeHeader reads one into dst.
func decodeHeader(dst, reply []byte) (int, error) {
	if len(reply) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return 0, fmt.Errorf("a header of %d letters", len(reply))
	}
	return base64.RawURLEncoding.Decode(dst, reply)
}
