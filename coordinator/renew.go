package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// renewTries is how many renewals in a row may go unanswered, a third of the
// lease's life each: about 10 s at 2 s.
const renewTries = 15

// renew keeps the lease until ctx ends; it reports when another holds it, or
// when the message server no longer answers. An expired lease alone is no
// reason to stop (Lease.Renew takes it again when it is free), and neither is
// the time gone by: a suspended process has done nothing in it.
func renew(ctx context.Context, l Lease, deposed chan<- error) {
	tick := time.NewTicker(l.TTL() / 3)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(ctx, l.TTL()/3)
		err := l.Renew(attempt)
		cancel()
		switch {
		case err == nil:
			failures = 0
			continue
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced):
			deposed <- err
			return
		}
		if failures++; failures == renewTries {
			deposed <- fmt.Errorf("the message server does not answer (%d times in a row): %w", failures, err)
			return
		}
	}
}
