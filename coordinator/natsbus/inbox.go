package natsbus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// publish sends one message as JSON.
func publish(nc *nats.Conn, subject string, m protocol.Message) error {
	m.Version = protocol.Version
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message for %s: %w", subject, err)
	}
	return nc.Publish(subject, data)
}

// inbox is one subscription read by one goroutine, which decodes the messages
// in order and closes ch when it ends.
type inbox struct {
	sub    *nats.Subscription
	cancel context.CancelFunc
	owned  sync.WaitGroup
}

// subscribe starts an inbox. Pending messages are not limited: dropping one
// would stall a step.
func subscribe(nc *nats.Conn, log *slog.Logger, subject string, ch chan<- protocol.Message) (*inbox, error) {
	sub, err := nc.SubscribeSync(subject)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &inbox{sub: sub, cancel: cancel}
	b.owned.Go(func() {
		defer close(ch)
		for {
			raw, err := sub.NextMsgWithContext(ctx)
			if err != nil {
				return // stopped, or the connection was closed
			}
			var m protocol.Message
			if err := json.Unmarshal(raw.Data, &m); err != nil {
				log.Warn("message dropped: not of this protocol", "subject", raw.Subject, "bytes", len(raw.Data), "err", err)
				continue
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
