package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/protocol"
)

// Coordinator is the coordinator's end of the bus.
type Coordinator struct {
	nc       *conn
	asked    *conn // of its own, for the status: however many ask, what replicas say does not wait behind them
	monitor  *conn // in the system account; nil with an external server
	opts     Options
	messages chan protocol.Message
	lost     chan string
	done     chan struct{}
	inbox    *inbox
	uploads  *receiver
	close    sync.Once

	clients clients

	mu   sync.Mutex
	last encoded
}

// encoded is a message as it travels.
type encoded struct {
	protocol.Message
	data []byte
}

// ConnectCoordinator connects the coordinator of a job. With an embedded
// server it also watches for clients that disconnect.
func ConnectCoordinator(ctx context.Context, o Options) (_ *Coordinator, err error) {
	if o, err = o.validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{
		opts:     o,
		messages: make(chan protocol.Message, 256),
		lost:     make(chan string, 64),
		done:     make(chan struct{}),
		clients:  clients{newest: map[string]uint64{}},
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.nc, err = connect(ctx, o, "mochi-coordinator"); err != nil {
		return nil, err
	}
	dropped := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if !errors.Is(err, nats.ErrSlowConsumer) { // more have asked than are answered
			o.Log.Error("NATS", "conn", "status", "err", err)
		}
	})
	if c.asked, err = connect(ctx, o, "mochi-coordinator-status", dropped); err != nil {
		return nil, err
	}
	if o.Server != nil {
		if err = c.watch(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// watch subscribes to the server's events of clients that connect and disconnect.
// A replica whose connection broke without a word is back long before the server
// notices the end of that. So a connection has ended when there is a newer one of
// its name, too: what was on its way in it is lost; and its end is no second one.
func (c *Coordinator) watch(ctx context.Context) (err error) {
	user, password, subject := c.opts.Server.Monitor()
	c.monitor, err = connect(ctx, c.opts, "mochi-monitor", nats.UserInfo(user, password))
	if err != nil {
		return err
	}
	all := strings.TrimSuffix(subject, "DISCONNECT") + "*"
	_, err = c.monitor.Subscribe(all, func(raw *nats.Msg) {
		var event struct {
			Client struct {
				ID   uint64 `json:"id"`
				Name string `json:"name"`
			} `json:"client"`
		}
		if err := json.Unmarshal(raw.Data, &event); err != nil || !natsserver.IsToken(event.Client.Name) || event.Client.Name == statusName {
			return // one without a name is no replica, and many ask for the status at a time
		}
		id, name := event.Client.ID, event.Client.Name
		switch {
		case strings.HasSuffix(raw.Subject, ".CONNECT"):
			before, open := c.clients.came(name, id)
			if !open {
				return
			}
			if before < id { // half open: whoever is new has shown the same key
				_ = c.opts.Server.Kick(before) // or it has ended meanwhile
			}
		case !strings.HasSuffix(raw.Subject, ".DISCONNECT") || !c.clients.went(name, id):
			return
		}
		select {
		case c.lost <- name:
		case <-c.done:
		}
	})
	if err != nil {
		return fmt.Errorf("watch for disconnects: %w", err)
	}
	return flush(ctx, c.monitor.Conn)
}

// Serve starts to receive: messages of replicas, requests for the status, and
// checkpoints. wants says whether a replica may send the state after a step: nil,
// protocol.ErrNotYet, or why not. save reads one that it may send to its end and
// returns once it is safe; it runs on a goroutine of its own, one at a time. open
// finds a stored one. It is called once.
func (c *Coordinator) Serve(
	status func() protocol.Status,
	wants func(from string, step int64) error,
	save func(ctx context.Context, from string, step int64, r io.Reader) error,
	open func(name string) (io.ReadSeekCloser, error),
) error {
	ctx, cancel := context.WithCancel(context.Background()) // until Close
	c.uploads = newReceiver(c.opts, cancel)
	c.uploads.wants, c.uploads.save, c.uploads.open = wants, save, open
	_, err := c.nc.Subscribe(protocol.CheckpointSubject(c.opts.Job, "*"), func(m *nats.Msg) { c.uploads.handle(ctx, m) })
	if err != nil {
		return fmt.Errorf("serve checkpoints: %w", err)
	}
	if err := c.answerStatus(status); err != nil {
		return fmt.Errorf("serve the status: %w", err)
	}
	c.inbox, err = subscribe(c.nc.Conn, c.opts.Log, protocol.CoordinatorSubject(c.opts.Job, "*"), c.messages, c.hears(), sentBy)
	if err != nil {
		return err
	}
	return flush(context.Background(), c.nc.Conn)
}

// Limits of who asks for the status: an answer is good for so long, and so many may wait
// for theirs. Those beyond hear nothing.
const (
	statusFor     = 50 * time.Millisecond
	statusWaiting = 256
)

// answerStatus tells who asks how the job stands.
func (c *Coordinator) answerStatus(status func() protocol.Status) error {
	var data []byte // one goroutine of NATS calls
	var at time.Time
	sub, err := c.asked.Subscribe(protocol.StatusSubject(c.opts.Job), func(raw *nats.Msg) {
		var err error
		if time.Since(at) >= statusFor {
			data, err = json.Marshal(status())
			at = time.Now()
		}
		if err == nil {
			err = respond(raw, nil, data)
		}
		if err != nil {
			c.opts.Log.Warn("status not answered", "err", err)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(statusWaiting, -1)
	}
	if err != nil {
		return err
	}
	return flush(context.Background(), c.asked.Conn)
}

// sentBy takes the sender from the subject: the server of the bus lets nobody publish on
// another's, whatever the message says. A Hello in another's name is dropped: its answer
// would go to that one, and could send it home.
func sentBy(m *protocol.Message, subject string) bool {
	m.From = protocol.Sender(subject)
	return m.Hello == nil || m.Hello.ID == m.From
}

// RemoteAddr is HOST:PORT of the NATS server that this one is connected to, "" where it is
// embedded.
func (c *Coordinator) RemoteAddr() string {
	if c.nc.dialer == nil {
		return ""
	}
	return c.nc.at()
}

// Conn is the connection itself, for the commit log.
func (c *Coordinator) Conn() *nats.Conn { return c.nc.Conn }

// Send delivers a message to one replica, in order. A commit or a round goes to all
// members of a round, one after another, and is long: it is encoded once.
func (c *Coordinator) Send(to string, m protocol.Message) error {
	subject := protocol.ReplicaSubject(c.opts.Job, to)
	if m.Commit == nil && m.Round == nil {
		return publish(c.nc.Conn, subject, m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.last; l.data == nil || l.Commit != m.Commit || l.Round != m.Round || l.Term != m.Term {
		data, err := encode(m)
		if err != nil {
			return fmt.Errorf("encode a message for %s: %w", subject, err)
		}
		c.last = encoded{m, data}
	}
	return c.nc.Publish(subject, c.last.data)
}

// Messages are those of the replicas, in order for each of them.
func (c *Coordinator) Messages() <-chan protocol.Message { return c.messages }

// Lost delivers the names of clients that disconnected: replica ids and
// others. With an external server it stays silent.
func (c *Coordinator) Lost() <-chan string { return c.lost }

// Flush waits until the server has what was sent.
func (c *Coordinator) Flush(ctx context.Context) error {
	return flush(ctx, c.nc.Conn)
}

// Close ends the connections; an upload in progress is aborted.
func (c *Coordinator) Close() {
	c.close.Do(func() {
		close(c.done)
		for _, nc := range []*conn{c.monitor, c.asked, c.nc} {
			if nc != nil {
				closeAfterFlush(nc, c.opts.Log)
			}
		}
		if c.inbox != nil {
			c.inbox.stop()
		}
		if c.uploads != nil {
			c.uploads.stop()
		}
	})
}
