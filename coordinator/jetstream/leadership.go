package jetstream

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator"
	"mochi/coordinator/follow"
)

// passLimit is how long a new leader waits for its own follower to hear of what was
// written before. One that takes longer lets another lead.
const passLimit = 10 * time.Second

// Leadership is the log of the job for as long as this coordinator leads; then what
// writes returns coordinator.ErrFenced. Whether what was being written then is in the
// log, the next leader sees.
type Leadership struct {
	g    *Group
	id   string // before the numbers of its entries
	done chan struct{}
	once sync.Once

	writing chan struct{} // capacity 1: held by whoever reads or changes what follows
	state   *state        // with all that this one wrote
	number  int           // of attempts
	began   bool          // the first entry is written
	pending *attempt      // whose outcome is not known: it comes first
	purged  uint64        // commits and lines before this entry have gone

	told *follow.Outbox[put]
}

// attempt is an entry that is to be written once, however often it is tried.
type attempt struct {
	make func(s *state) (*entry, error) // from the state before it; nil: there is nothing to write

	entry *entry
	id    string
	done  bool
}

// Lead waits until this coordinator leads, and Follower has been told of all that was
// written before. An error but ctx's means that this one cannot go on. After the job is
// over nobody leads any more who was there then.
func (g *Group) Lead(ctx context.Context) (*Leadership, error) {
	for {
		g.held.Wait()
		l, err := g.tryToLead(ctx)
		g.mu.Lock()
		failed := g.failed
		g.mu.Unlock()
		switch {
		case failed != nil:
			return nil, failed
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		g.change(func() { g.trouble = err })
		g.o.Log.Debug("leadership not begun", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
	}
}

// tryToLead takes the lease, and begins.
func (g *Group) tryToLead(ctx context.Context) (*Leadership, error) {
	acquire, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // who must not lead does not wait for it
		for {
			g.mu.Lock()
			failed, changed := g.failed, g.changed
			g.mu.Unlock()
			if failed != nil {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-stop:
				return
			}
		}
	}()
	if err := g.lease.Acquire(acquire); err != nil {
		return nil, err
	}
	if g.givesWay() {
		err := g.lease.Release(acquire)
		select {
		case <-acquire.Done():
		case <-time.After(lookEvery):
		}
		return nil, errors.Join(errLacks, err)
	}
	l := &Leadership{
		g: g, id: rand.Text()[:12], done: make(chan struct{}), writing: make(chan struct{}, 1),
		told: follow.NewOutbox[put](),
	}
	g.held.Go(l.keep)
	if err := l.begin(acquire); err != nil {
		l.end()
		g.held.Wait()
		return nil, err
	}
	g.held.Go(l.run)
	return l, nil
}

// giveWayLimit is how long one that could lead, and lacks the newest checkpoint, leaves it
// to others, who may hold it.
const giveWayLimit = 6 * time.Second

var errLacks = errors.New("the newest checkpoint is not here; another coordinator may have it, and lead")

// givesWay says whether another coordinator had better lead: the replicas may have gone
// home after the newest checkpoint was stored.
func (g *Group) givesWay() bool {
	own, _ := g.o.Follow.Checkpoint()
	g.mu.Lock()
	defer g.mu.Unlock()
	if own >= g.state.stored {
		g.yields = time.Time{}
		return false
	}
	if g.yields.IsZero() {
		g.yields = time.Now()
	}
	return time.Since(g.yields) < giveWayLimit
}

// keep renews the lease until the leadership ends, and gives it back then. Not to reach
// NATS is no reason to stop: who led meanwhile has begun, and what this one writes is
// refused.
func (l *Leadership) keep() {
	lease, tick := l.g.lease, time.NewTicker(l.g.o.TTL/3)
	defer tick.Stop()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.g.o.TTL)
		defer cancel()
		if err := lease.Release(ctx); err != nil {
			l.g.o.Log.Debug("the lease was not given back; it expires", "err", err)
		}
	}()
	for {
		select {
		case <-l.done:
			return
		case <-l.g.ctx.Done():
			l.end()
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(l.g.ctx, l.g.o.TTL/3)
		err := lease.Renew(ctx)
		cancel()
		if errors.Is(err, coordinator.ErrFenced) {
			l.end()
			return
		}
	}
}

// Done is closed when this coordinator no longer leads.
func (l *Leadership) Done() <-chan struct{} { return l.done }

func (l *Leadership) end() { l.once.Do(func() { close(l.done) }) }

func (l *Leadership) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// errOver: the job has ended, and whoever is here is about to end too.
var errOver = errors.New("the job is over")

// begin writes the first entry of the leadership behind all others, and waits until the
// follower was told of them.
func (l *Leadership) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	name, err := json.Marshal(begun{l.g.o.Name, l.g.instance})
	if err != nil {
		return err
	}
	for {
		within, done := context.WithTimeout(ctx, callLimit)
		info, err := l.g.stream.Info(within)
		done()
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		end := info.State.LastSeq
		if info.State.Msgs > 0 {
			if err := l.g.passed(ctx, end); err != nil {
				return err
			}
		}
		var over bool
		l.g.look(func(s *state) { l.state, over = s.clone(), s.overAt > l.g.started })
		if over {
			return errOver
		}
		l.state.seq = end
		a := &attempt{make: func(*state) (*entry, error) { return &entry{kind: kindBegin, body: name}, nil }}
		switch err := l.put(ctx, a); {
		case errors.Is(err, errMoved): // somebody wrote something since
			l.pending = nil
			continue
		case err != nil:
			return err
		}
		l.began = true
		break
	}
	if l.state.overAt > 0 { // before this one came
		if err := l.put(ctx, setting(setOver, nil)); err != nil {
			return err
		}
	}
	if !l.state.known {
		held := map[string]int64{}
		for _, file := range l.g.o.Files {
			if held[file], err = l.g.o.Follow.Held(file); err != nil {
				return err
			}
		}
		text, err := json.Marshal(held)
		if err == nil {
			err = l.put(ctx, setting(setHeld, text))
		}
		if err != nil {
			return err
		}
	}
	return l.g.compare()
}

// passed waits until the follower was told of all entries up to one.
func (g *Group) passed(ctx context.Context, seq uint64) error {
	select {
	case g.news <- struct{}{}:
	default:
	}
	for {
		g.mu.Lock()
		told, trouble, failed, changed := g.told, g.trouble, g.failed, g.changed
		g.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case told >= seq:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("what was logged before is not here yet: %w", errors.Join(ctx.Err(), trouble))
		}
	}
}

func setting(name string, body []byte) *attempt {
	return &attempt{make: func(*state) (*entry, error) { return &entry{kind: kindSet + name, body: body}, nil }}
}

// errMoved: somebody else has written an entry.
var errMoved = fmt.Errorf("the log has an entry of another: %w", coordinator.ErrFenced)

// put writes an entry. After any error but coordinator.ErrFenced it may be called again
// with it.
func (l *Leadership) put(ctx context.Context, a *attempt) error {
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.pending != nil && l.pending != a {
		if err := l.publish(ctx, l.pending); err != nil {
			return err
		}
	}
	if a.done {
		return nil
	}
	if l.over() {
		return coordinator.ErrFenced
	}
	if a.entry == nil {
		e, err := a.make(l.state)
		if err != nil || e == nil {
			return err
		}
		l.number++
		a.entry, a.id = e, l.id+strconv.Itoa(l.number)
	}
	l.pending = a
	return l.publish(ctx, a)
}

// publish writes the pending entry, or finds that it was written already. l.writing is
// held.
func (l *Leadership) publish(ctx context.Context, a *attempt) error {
	if l.over() {
		return coordinator.ErrFenced
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	seq := l.state.seq + 1
	ack, err := l.g.js.PublishMsg(ctx, a.entry.message(l.g.o.Job, a.id), js.WithExpectLastSequence(l.state.seq))
	if moved(err) {
		var raw *js.RawStreamMsg
		raw, err = l.g.stream.GetMsg(ctx, seq)
		if err == nil && raw.Header.Get(idHeader) != a.id || errors.Is(err, js.ErrMsgNotFound) {
			if l.began {
				l.end()
			}
			return errMoved
		}
	} else if err == nil {
		seq = ack.Sequence
	}
	if err != nil {
		return fmt.Errorf("write to the log: %w", err)
	}
	a.done, l.pending = true, nil
	_, err = l.state.apply(seq, time.Now(), *a.entry)
	return err
}

// Resign gives the lease back, so that another coordinator can lead at once.
func (l *Leadership) Resign(context.Context) error {
	l.end()
	l.g.held.Wait()
	return nil
}

// read looks at what this leadership has written, and what was there before.
func (l *Leadership) read(ctx context.Context, do func(*state)) error {
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.over() {
		return coordinator.ErrFenced
	}
	do(l.state)
	return nil
}
