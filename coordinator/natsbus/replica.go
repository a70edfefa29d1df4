package natsbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/protocol"
)

// Replica is a replica's end of the bus. It is safe for concurrent use.
type Replica struct {
	nc       *conn
	opts     Options
	messages chan protocol.Message
	inbox    *inbox
	moved    chan struct{} // capacity 1
	close    sync.Once

	mu     sync.Mutex
	large  *conn // for checkpoints, from the first one on
	closed bool
	server string // id of the one connected last
}

// ConnectReplica connects the replica o.ID to a job. The connection is named
// after the replica: when it closes, for whatever reason, the coordinator
// hears of it at once.
func ConnectReplica(ctx context.Context, o Options) (*Replica, error) {
	o, err := o.validate()
	if err != nil {
		return nil, err
	}
	if !natsserver.IsToken(o.ID) {
		return nil, fmt.Errorf("replica id %q: letters, digits, '-' and '_' only, at least one", o.ID)
	}
	r := &Replica{opts: o, messages: make(chan protocol.Message, 64), moved: make(chan struct{}, 1)}
	r.opts.restored = nil // not of the connection for checkpoints
	o.restored = r.restored
	if r.nc, err = connect(ctx, o, o.ID); err != nil {
		return nil, err
	}
	if r.inbox, err = subscribe(r.nc.Conn, o.Log, protocol.ReplicaSubject(o.Job, o.ID), r.messages, func(string, int) bool { return true }, r.learn); err != nil {
		r.nc.Close()
		return nil, err
	}
	r.mu.Lock()
	r.server = r.nc.ConnectedServerId()
	r.mu.Unlock()
	// The server must know the subscription before anybody answers.
	if err := flush(ctx, r.nc.Conn); err != nil {
		r.Close()
		return nil, fmt.Errorf("subscribe at %s: %w", r.nc.at(), err)
	}
	return r, nil
}

// learn takes from a message what this end of the bus needs to know: where the
// coordinators are.
func (r *Replica) learn(m *protocol.Message, _ string) bool {
	if m.Welcome != nil && r.opts.Addresses != nil {
		r.opts.Addresses.Learn(m.Welcome.Coordinators)
	}
	return true
}

// restored notes that there is a connection again. One to another server is to
// another coordinator, or to one that was started anew; but in a cluster of NATS
// servers it says nothing of that.
func (r *Replica) restored(nc *nats.Conn) {
	r.mu.Lock()
	was := r.server
	r.server = nc.ConnectedServerId()
	moved := was != "" && r.server != was && nc.ConnectedClusterName() == ""
	r.mu.Unlock()
	if moved {
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}
}

// Moved tells that this replica is connected to another coordinator than before,
// which does not know it.
func (r *Replica) Moved() <-chan struct{} { return r.moved }

// RemoteAddr is HOST:PORT of the coordinator connected last, "" in one process.
func (r *Replica) RemoteAddr() string {
	if r.nc.dialer == nil {
		return ""
	}
	return r.nc.at()
}

// Conn is the connection itself, for what else travels beside the protocol
// (collectives through the coordinator's server).
func (r *Replica) Conn() *nats.Conn { return r.nc.Conn }

// bulk is the connection for checkpoints. Its name is no replica's: when it ends
// nobody is lost.
func (r *Replica) bulk(ctx context.Context) (*conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, nats.ErrConnectionClosed
	case r.large != nil:
		return r.large, nil
	}
	o := r.opts
	o.Wait = 0
	nc, err := connect(ctx, o, bulkName+o.ID)
	if err == nil {
		r.large = nc
	}
	return nc, err
}

// Connected says whether there is a connection to the server right now.
func (r *Replica) Connected() bool { return r.nc.IsConnected() }

// Send delivers a message to the coordinator, in order. While the connection
// is being restored messages are kept, up to 1 MiB.
//
// NATS's client writes by itself when its buffer is full, and gives the error of a
// connection that breaks just then. The end of the buffer, which is this message, has
// not left then, so it is sent again, and still arrives once: the client notices within
// moments, and keeps it.
func (r *Replica) Send(ctx context.Context, m protocol.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.From = r.opts.ID
	for began := time.Now(); ; {
		err := publish(r.nc.Conn, protocol.CoordinatorSubject(r.opts.Job, r.opts.ID), m)
		if broke := net.Error(nil); !errors.As(err, &broke) || time.Since(began) > noticeWithin {
			return err
		}
		if ended := pause(ctx, noticeEvery); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

// How soon NATS's client has noticed that a connection is gone to which it cannot
// write, and how often that is looked at.
const (
	noticeWithin = 10 * time.Second
	noticeEvery  = 5 * time.Millisecond
)

// Messages are those of the coordinator to this replica, in order. The
// channel is closed by Close.
func (r *Replica) Messages() <-chan protocol.Message { return r.messages }

// Status asks the coordinator how the job stands.
func (r *Replica) Status(ctx context.Context) (protocol.Status, error) {
	return status(ctx, r.nc, r.opts.Job)
}

// Close flushes what was sent and closes the connection; messages not yet
// read are dropped.
func (r *Replica) Close() { r.end(func() { closeAfterFlush(r.nc, r.opts.Log) }) }

// Drop closes the connection at once, whatever is still to be sent: the other end may
// have gone silent.
func (r *Replica) Drop() { r.end(r.nc.Close) }

func (r *Replica) end(how func()) {
	r.close.Do(func() {
		r.mu.Lock()
		r.closed = true
		if r.large != nil {
			r.large.Close()
		}
		r.mu.Unlock()
		how()
		r.inbox.stop()
	})
}
