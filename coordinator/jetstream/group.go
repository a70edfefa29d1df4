package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mochi/coordinator/follow"
)

// Options of a Group.
type Options struct {
	Job    string
	Name   string     // of this coordinator, for people
	Conn   *nats.Conn // to NATS servers with JetStream; it reconnects for ever
	Follow follow.Follower
	Files  []string      // whose lines are in the log
	TTL    time.Duration // of the lease; default 2 s
	Log    *slog.Logger
}

// standardTTL is how long a leader that says nothing still leads.
const standardTTL = 2 * time.Second

// How long to wait before what failed is tried again, and for news.
const (
	againAfter  = 100 * time.Millisecond
	againAtMost = 5 * time.Second
	lookEvery   = time.Second
	callLimit   = 2 * time.Second // for an answer, which may be lost when a NATS server ends
)

// Group is one of several coordinators that share a log in JetStream: one stream of
// entries. One of them has the lease, and leads. It begins with an entry, and every entry
// names the sequence that it follows, so from then on whatever an earlier leader still
// writes is refused by the stream: the lease elects, the log decides. The others read all
// entries, and so have what they need when they lead.
type Group struct {
	o        Options
	js       js.JetStream
	stream   js.Stream
	lease    *Lease
	instance string
	started  uint64 // the last entry when this one came

	ctx   context.Context // until Close
	stop  context.CancelFunc
	owned sync.WaitGroup
	news  chan struct{} // capacity 1: there may be an entry
	subs  []*nats.Subscription
	held  sync.WaitGroup // of a leadership that is ending

	mu      sync.Mutex
	state   *state
	told    uint64        // the follower was told of all entries up to this one
	yields  time.Time     // since when another may lead that holds the newest checkpoint
	changed chan struct{} // closed and made anew when told, trouble or failed change
	trouble error
	failed  error // for good
}

// Join opens the log of a job, and begins to follow it. said is what people should know of
// the NATS servers.
func Join(ctx context.Context, o Options) (g *Group, said []string, err error) {
	if o.TTL == 0 {
		o.TTL = standardTTL
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g = &Group{o: o, instance: o.Name + "." + rand.Text()[:8], state: newState(), news: make(chan struct{}, 1), changed: make(chan struct{})}
	var kv js.KeyValue
	for {
		attempt, cancel := context.WithTimeout(ctx, againAtMost)
		g.stream, kv, said, err = open(attempt, o.Conn, o.Job, o.TTL)
		cancel()
		if err == nil {
			break
		}
		if !passes(err) {
			return nil, nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w; are most of the NATS servers there, and connected to each other?", err)
		case <-time.After(againAfter):
		}
	}
	if g.js, err = js.New(o.Conn); err != nil {
		return nil, nil, err
	}
	g.started = g.stream.CachedInfo().State.LastSeq
	g.lease = &Lease{kv: kv, holder: g.instance, ttl: o.TTL, log: slog.New(slog.DiscardHandler)}
	// A hint that there is something to read, no more: the stream may refuse it.
	hint, err := o.Conn.Subscribe(logSubject(o.Job)+">", func(*nats.Msg) {
		select {
		case g.news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("follow the log of job %q: %w", o.Job, err)
	}
	lines, err := o.Conn.Subscribe(linesSubject(o.Job), g.giveLines)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("serve lines of job %q: %w", o.Job, err), hint.Unsubscribe())
	}
	g.subs = []*nats.Subscription{hint, lines}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.owned.Go(func() { g.read(g.ctx) })
	return g, said, nil
}

// Close ends it; a leadership must have ended before.
func (g *Group) Close() {
	g.stop()
	for _, s := range g.subs {
		_ = s.Unsubscribe() // the connection may be gone
	}
	g.held.Wait()
	g.owned.Wait()
}

// look reads the state.
func (g *Group) look(do func(*state)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do(g.state)
}

// change changes what others wait for.
func (g *Group) change(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *Group) fail(err error) { g.change(func() { g.failed = err }) }

// read reads entries in their order and tells the follower of them, until ctx ends.
func (g *Group) read(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for wait := againAfter; ctx.Err() == nil; {
		found, err := g.readOne(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			g.change(func() { g.trouble = err })
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, againAtMost)
			continue
		}
		wait = againAfter
		if found {
			continue
		}
		select {
		case <-ctx.Done():
		case <-g.news:
		case <-look.C:
		}
	}
}

// readOne reads the next entry; false: there is none.
func (g *Group) readOne(ctx context.Context) (bool, error) {
	g.mu.Lock()
	at := g.told
	g.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	raw, err := g.stream.GetMsg(within, at+1, js.WithGetMsgSubject(logSubject(g.o.Job)+">"))
	if errors.Is(err, js.ErrMsgNotFound) {
		g.change(func() { g.trouble = nil })
		return false, g.compare()
	}
	if err != nil {
		return false, fmt.Errorf("read the log: %w", err)
	}
	e, err := entryOf(g.o.Job, raw)
	var told item
	if err == nil {
		g.look(func(s *state) { told, err = s.apply(raw.Sequence, raw.Time, e) })
	}
	if err != nil {
		g.fail(err)
		<-ctx.Done()
		return false, ctx.Err()
	}
	g.tell(ctx, told)
	g.change(func() { g.told = raw.Sequence })
	return true, nil
}

// compare ends this coordinator when its files hold lines that the log does not know of:
// they are of another history.
func (g *Group) compare() error {
	var known bool
	counts := map[string]int64{}
	g.look(func(s *state) {
		known = s.known
		for _, file := range g.o.Files {
			counts[file] = s.lines[file]
		}
	})
	for file, n := range counts {
		held, err := g.o.Follow.Held(file)
		if err != nil {
			return fmt.Errorf("count the lines of %s: %w", file, err)
		}
		if known && held > n {
			g.fail(fmt.Errorf("%s has %d lines here, %d in the log of job %q: it is of another run; move the run folder of this coordinator aside, or give the job another name with --job", file, held, n, g.o.Job))
		}
	}
	return nil
}

// tell passes on what an entry says.
func (g *Group) tell(ctx context.Context, it item) {
	switch {
	case it.stored != nil:
		g.o.Follow.Stored(*it.stored)
	case it.over != nil:
		g.o.Follow.Over(*it.over)
	case it.config != "":
		g.o.Follow.Configured(it.config)
	}
	for i, text := range it.lines {
		n := it.first + int64(i)
		g.retry(ctx, fmt.Sprintf("write line %d of %s", n, it.file), func() error {
			held, err := g.o.Follow.Held(it.file)
			for err == nil && held < n-1 {
				held, err = g.fetch(ctx, it.file, held, n-1)
			}
			if err != nil || held >= n {
				return err
			}
			return g.o.Follow.Line(it.file, n, text)
		})
	}
}

// retry does something until it succeeds or ctx ends.
func (g *Group) retry(ctx context.Context, what string, do func() error) {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		g.change(func() { g.trouble = fmt.Errorf("%s: %w", what, err) })
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Settings are what is logged besides commits and lines, as far as it is read here.
type Settings struct {
	Config string
	Step   int64 // of the last commit
}

// Settings returns what is read here.
func (g *Group) Settings() (out Settings) {
	g.look(func(s *state) {
		out.Config = string(s.set[setConfig])
		if last := s.last(); last != nil {
			out.Step = last.Step
		}
	})
	return out
}

// Standing is how a group stands, as seen from one coordinator.
type Standing struct {
	Leader  string    // name of the one that began to lead last, "" when none has
	Here    bool      // it is this one
	Since   time.Time // when it began
	Step    int64     // of the last commit that is read here
	Trouble string    // what this one is held up by, "" when by nothing
}

// Standing says how the group stands.
func (g *Group) Standing() Standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Standing{Leader: g.state.leads.Name, Here: g.state.leads.Instance == g.instance, Since: g.state.since}
	if last := g.state.last(); last != nil {
		s.Step = last.Step
	}
	if err := errors.Join(g.failed, g.trouble); err != nil {
		s.Trouble = err.Error()
	}
	return s
}
