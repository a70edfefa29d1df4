package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator"
)

// leaderKey holds the leader's instance.
const leaderKey = "leader"

// Lease makes one coordinator of a job the leader. It lives in the server's
// memory: a lease does not outlive the server that granted it.
type Lease struct {
	kv       js.KeyValue
	holder   string
	ttl      time.Duration
	log      *slog.Logger
	revision uint64 // 0: not held
}

// NewLease prepares a lease for holder (an instance, unique to this run).
// Nothing is acquired yet. All coordinators of a job must use the same ttl.
func NewLease(ctx context.Context, nc *nats.Conn, job, holder string, ttl time.Duration, log *slog.Logger) (*Lease, error) {
	api, err := js.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	kv, err := api.CreateOrUpdateKeyValue(ctx, js.KeyValueConfig{
		Bucket: fmt.Sprintf("MOCHI_%s_LEASE", job), Storage: js.MemoryStorage, TTL: ttl,
	})
	if err != nil {
		return nil, fmt.Errorf("open the lease of job %q: %w", job, err)
	}
	return &Lease{kv: kv, holder: holder, ttl: ttl, log: log}, nil
}

// TTL is how long the lease lasts after Acquire or Renew.
func (l *Lease) TTL() time.Duration { return l.ttl }

// Acquire waits until the lease is free and takes it.
func (l *Lease) Acquire(ctx context.Context) error {
	told := false
	for {
		attempt, cancel := context.WithTimeout(ctx, callLimit) // an answer may be lost
		revision, err := l.kv.Create(attempt, leaderKey, []byte(l.holder))
		if errors.Is(err, js.ErrKeyExists) {
			if entry, failed := l.kv.Get(attempt, leaderKey); failed == nil && string(entry.Value()) == l.holder {
				revision, err = entry.Revision(), nil
			}
		}
		cancel()
		if err == nil {
			l.revision = revision
			return nil
		}
		if !errors.Is(err, js.ErrKeyExists) {
			return fmt.Errorf("acquire the lease: %w", err)
		}
		if !told {
			told = true
			l.log.Info("another coordinator leads this job; waiting to take over", "leader", l.leader(ctx))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("acquire the lease held by %s: %w", l.leader(context.WithoutCancel(ctx)), ctx.Err())
		case <-time.After(l.ttl / 10):
		}
	}
}

func (l *Lease) leader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	if entry, err := l.kv.Get(ctx, leaderKey); err == nil {
		return string(entry.Value())
	}
	return "unknown"
}

// Renew extends the lease, or takes it again when it expired and nobody else
// did: a process that stood still (a suspended machine, Ctrl-Z, a starved
// processor) goes on. Should another have led in between and be gone, the
// commit log refuses the next append. coordinator.ErrFenced means that another
// holds the lease.
func (l *Lease) Renew(ctx context.Context) error {
	revision, err := l.kv.Update(ctx, leaderKey, []byte(l.holder), l.revision)
	if moved(err) {
		revision, err = l.retake(ctx)
	}
	if err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	l.revision = revision
	return nil
}

// retake renews a lease whose revision is not the one known: it expired, or a
// renewal arrived whose answer did not.
func (l *Lease) retake(ctx context.Context) (revision uint64, err error) {
	entry, err := l.kv.Get(ctx, leaderKey)
	switch {
	case errors.Is(err, js.ErrKeyNotFound):
		revision, err = l.kv.Create(ctx, leaderKey, []byte(l.holder))
	case err != nil:
		return 0, err
	case string(entry.Value()) != l.holder:
		return 0, coordinator.ErrFenced
	default:
		revision, err = l.kv.Update(ctx, leaderKey, []byte(l.holder), entry.Revision())
	}
	if moved(err) {
		err = coordinator.ErrFenced // somebody was faster
	}
	return revision, err
}

// moved reports whether the key had another revision than expected.
func moved(err error) bool {
	return errors.Is(err, js.ErrKeyExists) || isCode(err, js.JSErrCodeStreamWrongLastSequence, codeWrongLastOther)
}

// Release gives the lease up, so that a successor need not wait.
func (l *Lease) Release(ctx context.Context) error {
	if l.revision == 0 {
		return nil
	}
	err := l.kv.Delete(ctx, leaderKey, js.LastRevision(l.revision))
	l.revision = 0
	if err != nil {
		return fmt.Errorf("release the lease: %w", err)
	}
	return nil
}
