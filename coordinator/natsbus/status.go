package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/protocol"
)

// RequestStatus asks a job's coordinator how it stands, over a connection of
// its own. ctx bounds the wait.
func RequestStatus(ctx context.Context, o Options) (protocol.Status, error) {
	o, err := o.validate()
	if err != nil {
		return protocol.Status{}, err
	}
	nc, err := connect(ctx, o, statusName)
	if err != nil {
		return protocol.Status{}, err
	}
	defer nc.Close()
	return status(ctx, nc, o.Job)
}

func status(ctx context.Context, nc *conn, job string) (protocol.Status, error) {
	var s protocol.Status
	reply, err := nc.RequestWithContext(ctx, protocol.StatusSubject(job), nil)
	if errors.Is(err, nats.ErrNoResponders) {
		return s, fmt.Errorf("no coordinator of job %q answers at %s", job, nc.at())
	}
	if err != nil {
		return s, fmt.Errorf("ask for the status of job %q: %w", job, err)
	}
	if err := json.Unmarshal(reply.Data, &s); err != nil {
		return s, fmt.Errorf("decode the status of job %q: %w", job, err)
	}
	return s, nil
}
