package natsbus

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// publish sends one message.
func publish(nc *nats.Conn, subject string, m protocol.Message) error {
	data, err := encode(m)
	if err != nil {
		return fmt.Errorf("encode a message for %s: %w", subject, err)
	}
	return nc.Publish(subject, data)
}

func encode(m protocol.Message) ([]byte, error) {
	m.Version = protocol.Version
	return protocol.Encode(m)
}

// respond answers a request, in an inbox. Who asks names where the answer goes, and the
// servers do not look whether it may publish there: the answer is the coordinator's, which
// may do all, and an empty one on a subject of JetStream's deletes the log.
func respond(m *nats.Msg, h nats.Header, data []byte) error {
	if !strings.HasPrefix(m.Reply, nats.InboxPrefix) {
		return fmt.Errorf("the answer is to go to %.100q, which is no inbox", m.Reply)
	}
	return m.RespondMsg(&nats.Msg{Header: h, Data: data})
}

// inbox is one subscription. NATS's goroutine decodes what arrives into a backlog,
// and never waits; another one hands it on in order, and closes ch when it ends.
type inbox struct {
	cancel context.CancelFunc
	owned  sync.WaitGroup
}

// subscribe starts an inbox. A client of NATS that is slow loses messages; here
// nobody is slow, however long the reader of ch is away. hears is asked first whether a
// message of so many bytes on a subject counts; seen is called with each that does,
// decoded, and the subject; it may change it, and says whether it counts.
func subscribe(nc *nats.Conn, log *slog.Logger, subject string, ch chan<- protocol.Message, hears func(subject string, bytes int) bool, seen func(m *protocol.Message, subject string) bool) (*inbox, error) {
	waiting := newBacklog(maxBacklog, maxWaits)
	sub, err := nc.Subscribe(subject, func(raw *nats.Msg) {
		if !hears(raw.Subject, len(raw.Data)) {
			return
		}
		var m protocol.Message
		if err := protocol.Decode(raw.Data, &m); err != nil {
			log.Warn("message dropped: not of this protocol", "subject", raw.Subject, "bytes", len(raw.Data), "err", err)
			return
		}
		if !seen(&m, raw.Subject) {
			return
		}
		if waiting.put(m, len(raw.Data)) {
			log.Error("messages are lost: more have come than can wait", "subject", raw.Subject, "limit_bytes", maxBacklog, "limit_bytes_of_one", maxWaits)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	closed := nc.StatusChanged(nats.CLOSED)
	b := &inbox{cancel: cancel}
	b.owned.Go(func() {
		defer close(ch)
		defer nc.RemoveStatusListener(closed)
		for {
			m, ok, dropped := waiting.take()
			if dropped > 0 {
				log.Error("messages were lost: more had come than can wait", "subject", subject, "messages", dropped)
			}
			if !ok {
				select {
				case <-waiting.wake:
					continue
				case <-closed:
					return
				case <-ctx.Done():
					return
				}
			}
			select {
			case ch <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	return b, nil
}

func (b *inbox) stop() {
	b.cancel()
	b.owned.Wait()
}
