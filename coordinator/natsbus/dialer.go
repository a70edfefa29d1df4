package natsbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/identity"
)

const (
	dialWait   = 100 * time.Millisecond // of NATS's client for a coordinator that answers, at a time; it holds its lock meanwhile
	holdFor    = 2 * time.Second        // how long a connection is held for it
	rereadEach = 500 * time.Millisecond // of the addresses while they are called
	shunFor    = 500 * time.Millisecond // how much later one is called whose connection ended at once, or that was left
	shortLived = time.Second            // at once

	lookAfter   = 200 * time.Millisecond // between two looks at a connection
	pingAfter   = 400 * time.Millisecond // of silence, so that a coordinator that lives is heard
	silentAfter = time.Second            // the others are called
)

// dialer finds the coordinator that leads. Of several, only that one listens, so
// all are called beside each other, again and again, and the first one that greets
// has it: a process that stands still accepts connections too, but says nothing.
//
// A leader that stands still, or is cut off, would be noticed after seconds only.
// So when nothing was heard for a second, not even an answer to a ping, the others
// are called beside the connection that there is. It is left only when one of them
// greets; a slow line alone changes nothing.
//
// With one address it is an ordinary dialer.
type dialer struct {
	where  *Addresses
	access Access // nil: in the clear
	log    *slog.Logger
	roots  *x509.CertPool  // for the TLS of NATS; nil: the system's
	ctx    context.Context // until close
	stop   context.CancelFunc
	owned  sync.WaitGroup
	found  chan *line    // to whoever dials, or nobody
	poke   chan struct{} // capacity 1: what the search is for has changed

	mu      sync.Mutex
	search  context.CancelFunc // of the one under way, nil when none
	without string             // this address is not called: it is connected, and silent
	why     map[string]error   // by address, since the search began
	current *line              // given out last
	taken   time.Time          // when
	left    bool               // it was left
	refusal time.Time          // when people were told that a coordinator does not let this process in
	waits   time.Time          // until then it is not called again, with why
	told    string             // trouble with the file of addresses, as logged last
}

func newDialer(where *Addresses, access Access, log *slog.Logger) *dialer {
	if where.creds != "" || where.secure {
		access = nil // they are NATS servers, which have ways of their own
	}
	d := &dialer{where: where, access: access, log: log, found: make(chan *line), poke: make(chan struct{}, 1)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// close ends all that the dialer began. Connections that were given out stay.
func (d *dialer) close() {
	d.stop()
	d.owned.Wait()
}

// at is the address of the connection given out last, or where it was looked for.
func (d *dialer) at() string {
	d.mu.Lock()
	current := d.current
	d.mu.Unlock()
	if current != nil {
		return current.address
	}
	return strings.Join(d.where.All(), ", ")
}

// Dial implements nats.CustomDialer. What NATS's client has in mind is not asked.
func (d *dialer) Dial(string, string) (net.Conn, error) { return d.dial(dialWait) }

func (d *dialer) dial(wait time.Duration) (net.Conn, error) {
	all := d.where.All()
	if len(all) == 1 {
		return d.dialOne(all[0])
	}
	d.seek("")
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	select {
	case l := <-d.found:
		d.take(l)
		return l, nil
	case <-timeout.C:
		return nil, d.failure(errors.New("no coordinator has answered yet"))
	case <-d.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (d *dialer) dialOne(address string) (net.Conn, error) {
	d.mu.Lock()
	if why := d.why[address]; why != nil && time.Now().Before(d.waits) {
		d.mu.Unlock()
		return nil, why
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.ctx, nats.DefaultTimeout)
	defer cancel()
	var plain net.Dialer
	conn, err := plain.DialContext(ctx, "tcp", address)
	l := &line{Conn: conn, address: address, began: time.Now()}
	if err == nil && d.access != nil {
		if l.Conn, l.head, err = open(ctx, conn, d.access, address); err != nil {
			_ = conn.Close() // nothing was sent
		}
	}
	if err != nil {
		d.mu.Lock()
		d.why = map[string]error{address: err}
		d.mu.Unlock()
		d.lets(address, err)
		return nil, err
	}
	d.take(l)
	return l, nil
}

// SkipTLSHandshake tells NATS's client that it has been made: with a coordinator, before
// the greeting. NATS servers want it behind theirs.
func (d *dialer) SkipTLSHandshake() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return false
	}
	_, made := d.current.Conn.(*tls.Conn)
	return made
}

// refused is why a coordinator does not let this process in, nil if none has said so.
func (d *dialer) refused() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, err := range d.why {
		var r *RefusedError
		var s *ServerError
		if errors.As(err, &r) || errors.As(err, &s) {
			return err
		}
	}
	return nil
}

func (d *dialer) take(l *line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current, d.taken, d.left = l, time.Now(), false
}

// failure says what became of the search so far; by default, if nothing is known.
func (d *dialer) failure(standard error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for address, err := range d.why {
		all = append(all, fmt.Sprintf("%s: %v", address, err))
	}
	if slices.Sort(all); len(all) == 0 {
		return standard
	}
	if len(all) == 1 && len(d.where.All()) == 1 {
		for _, err := range d.why {
			return err
		}
	}
	return fmt.Errorf("no coordinator leads: %s", strings.Join(all, "; "))
}

// seek begins to look for a coordinator that leads, if nobody does yet; not at an
// address, unless that is "".
func (d *dialer) seek(without string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.search != nil {
		if without == "" && d.without != "" {
			d.without = ""
			select {
			case d.poke <- struct{}{}:
			default:
			}
		}
		return
	}
	if d.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.search, d.without, d.why = cancel, without, map[string]error{}
	shun := ""
	if d.current != nil && (d.left || time.Since(d.taken) < shortLived) {
		shun = d.current.address
	}
	d.owned.Go(func() {
		d.offer(ctx, d.first(ctx, shun))
		d.mu.Lock()
		d.search = nil
		d.mu.Unlock()
		cancel()
	})
}

// callOff ends a search that is made because a connection is silent.
func (d *dialer) callOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.search != nil && d.without != "" {
		d.search()
	}
}

// first calls all until one greets; nil when ctx has ended before.
func (d *dialer) first(ctx context.Context, shun string) (winner *line) {
	calling, stop := context.WithCancel(ctx)
	greets := make(chan *line)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer stop()
	reread := time.NewTicker(rereadEach)
	defer reread.Stop()
	for called := map[string]bool{}; ; {
		all, trouble := d.where.All(), d.where.Trouble()
		d.mu.Lock()
		without := d.without
		if trouble != d.told && trouble != "" {
			d.log.Warn("the addresses known so far hold", "trouble", trouble)
		}
		d.told = trouble
		d.mu.Unlock()
		for _, address := range all {
			if called[address] || address == without {
				continue
			}
			called[address] = true
			calls.Go(func() { d.callAgain(calling, address, address == shun, greets) })
		}
		select {
		case winner = <-greets:
			return winner
		case <-ctx.Done():
			return nil
		case <-d.poke:
		case <-reread.C:
		}
	}
}

// callAgain calls one address until it, or another one, greets.
func (d *dialer) callAgain(ctx context.Context, address string, later bool, greets chan<- *line) {
	if later && pause(ctx, shunFor) != nil {
		return
	}
	for ctx.Err() == nil {
		l, err := d.call(ctx, address)
		if err == nil {
			select {
			case greets <- l:
			case <-ctx.Done():
				_ = l.Close() // it was not needed
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		d.why[address] = err
		d.mu.Unlock()
		wait := retryEvery
		if d.lets(address, err) {
			wait = refusedEvery
		}
		if pause(ctx, wait/2+rand.N(wait)) != nil {
			return
		}
	}
}

// refusedEvery is between two calls of a coordinator that does not let this process in, and
// refusedTold between two lines that say so.
const (
	refusedEvery = time.Second
	refusedTold  = time.Minute
)

// lets says whether a coordinator that was called answers and does not let this process in,
// and tells people when there has been a connection before: at the start whoever connects
// does.
func (d *dialer) lets(address string, err error) bool {
	var refused *RefusedError
	var server *ServerError
	var other *identity.ServerError
	if !errors.As(err, &refused) && !errors.As(err, &server) && !errors.As(err, &other) {
		return false
	}
	d.mu.Lock()
	d.waits = time.Now().Add(refusedEvery/2 + rand.N(refusedEvery))
	tell := d.current != nil && time.Since(d.refusal) >= refusedTold
	if tell {
		d.refusal = time.Now()
	}
	d.mu.Unlock()
	if tell {
		d.log.Error("the coordinator does not let this process in any more; it goes on trying", "at", address, "why", err)
	}
	return true
}

// offer holds a connection until it is dialled for. The one that it replaces is
// closed, if it is still silent: then NATS's client dials.
func (d *dialer) offer(ctx context.Context, l *line) {
	if l == nil {
		return
	}
	d.mu.Lock()
	if old := d.current; d.without != "" && old != nil && !old.closed.Load() {
		quiet := old.quiet()
		if quiet < silentAfter { // it was heard again
			d.mu.Unlock()
			_ = l.Close()
			return
		}
		d.log.Warn("the coordinator is silent, and another one answers",
			"silent", old.address, "for", quiet.Round(time.Millisecond), "answers", l.address)
		d.left = true
		_ = old.Close() // NATS's client says so
	}
	d.mu.Unlock()
	timeout := time.NewTimer(holdFor)
	defer timeout.Stop()
	select {
	case d.found <- l:
	case <-timeout.C:
		_ = l.Close()
	case <-ctx.Done():
		_ = l.Close()
	}
}

// watch looks after a client's connection until close.
func (d *dialer) watch(nc *nats.Conn) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	pinged := make(chan struct{}, 1) // one at a time
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		l := d.current
		d.mu.Unlock()
		if l == nil || l.closed.Load() || len(d.where.All()) < 2 {
			continue
		}
		quiet := l.quiet()
		if quiet < pingAfter {
			d.callOff()
			continue
		}
		select {
		case pinged <- struct{}{}:
			d.owned.Go(func() {
				defer func() { <-pinged }()
				ctx, cancel := context.WithTimeout(d.ctx, silentAfter)
				defer cancel()
				_ = nc.FlushWithContext(ctx) // its answer is heard by the line
			})
		default:
		}
		if quiet >= silentAfter {
			d.seek(l.address)
		}
	}
}
