package natsbus

import (
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/protocol"
)

// Replica is a replica's end of the bus. It is safe for concurrent use.
type Replica struct {
	nc       *nats.Conn
	opts     Options
	messages chan protocol.Message
	inbox    *inbox
	close    sync.Once

	mu     sync.Mutex
	large  *nats.Conn // for checkpoints, from the first one on
	closed bool
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
	r := &Replica{opts: o, messages: make(chan protocol.Message, 64)}
	if r.nc, err = connect(ctx, o, o.ID); err != nil {
		return nil, err
	}
	if r.inbox, err = subscribe(r.nc, o.Log, protocol.ReplicaSubject(o.Job, o.ID), r.messages); err != nil {
		r.nc.Close()
		return nil, err
	}
	// The server must know the subscription before anybody answers.
	if err := flush(ctx, r.nc); err != nil {
		r.Close()
		return nil, fmt.Errorf("subscribe at %s: %w", r.nc.ConnectedUrlRedacted(), err)
	}
	return r, nil
}

// Conn is the connection itself, for what else travels beside the protocol
// (collectives through the coordinator's server).
func (r *Replica) Conn() *nats.Conn { return r.nc }

// bulk is the connection for checkpoints. Its name is no replica's: when it ends
// nobody is lost.
func (r *Replica) bulk(ctx context.Context) (*nats.Conn, error) {
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
	nc, err := connect(ctx, o, "bulk."+o.ID)
	if err == nil {
		r.large = nc
	}
	return nc, err
}

// Connected says whether there is a connection to the server right now.
func (r *Replica) Connected() bool { return r.nc.IsConnected() }

// Send delivers a message to the coordinator, in order. While the connection
// is being restored messages are kept, up to 1 MiB.
func (r *Replica) Send(ctx context.Context, m protocol.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.From = r.opts.ID
	return publish(r.nc, protocol.CoordinatorSubject(r.opts.Job), m)
}

// Messages are those of the coordinator to this replica, in order. The
// channel is closed by Close.
func (r *Replica) Messages() <-chan protocol.Message { return r.messages }

// Status asks the coordinator how the job stands.
func (r *Replica) Status(ctx context.Context) (protocol.Status, error) {
	return status(ctx, r.nc, r.opts.Job)
}

// Close flushes what was sent and closes the connection; messages not yet
// read are dropped.
func (r *Replica) Close() {
	r.close.Do(func() {
		r.mu.Lock()
		r.closed = true
		if r.large != nil {
			r.large.Close()
		}
		r.mu.Unlock()
		closeAfterFlush(r.nc, r.opts.Log)
		r.inbox.stop()
	})
}
