package clustertest

import (
	"context"
	"time"
)

// links is the network between hosts: which way is open, and how long it takes.
type links struct {
	w       *World
	cut     map[way]bool
	slow    map[way]time.Duration
	stalled map[way]time.Duration    // until then nothing arrives
	uplinks map[string]time.Duration // of a piece of a checkpoint, by host
	flips   map[string]bool          // hosts whose next checkpoint is damaged
	away    map[string]span          // when a host could last not talk to the coordinator
	streams []*stream
	watches []func() // called when a way was cut or restored
}

// span is a time from and to; an end far ahead says that it lasts.
type span struct{ from, to time.Duration }

// way is one direction between two hosts.
type way struct{ from, to string }

// The latency of an ordinary link.
const (
	latencyLow  = 50 * time.Microsecond
	latencyHigh = 400 * time.Microsecond
)

// open says whether what is sent from one host arrives at another.
func (l *links) open(from, to string) bool {
	return !l.cut[way{from, to}] && l.w.now() >= l.stalled[way{from, to}]
}

// both says whether two hosts can talk.
func (l *links) both(a, b string) bool { return l.open(a, b) && l.open(b, a) }

// Cut loses what is sent from one host to another from now on, as a network
// does: connections between them stay open until somebody notices.
func (w *World) Cut(from, to string) { w.change(from, to, true) }

// Heal undoes Cut.
func (w *World) Heal(from, to string) { w.change(from, to, false) }

// Partition is Cut in both directions.
func (w *World) Partition(a, b string) { w.Cut(a, b); w.Cut(b, a) }

// Rejoin undoes Partition.
func (w *World) Rejoin(a, b string) { w.Heal(a, b); w.Heal(b, a) }

func (w *World) change(from, to string, cut bool) {
	w.mu.Lock()
	what := "link restored to " + to + " from "
	if cut {
		what = "link cut to " + to + " from "
	}
	w.note(nil, what+from, 0)
	w.links.cut[way{from, to}] = cut
	for _, host := range []string{from, to} {
		is := w.isolated(host)
		was, known := w.links.away[host]
		switch lasts := known && was.to > w.now(); {
		case is && !lasts:
			w.links.away[host] = span{w.now(), 1 << 62}
		case !is && lasts:
			w.links.away[host] = span{was.from, w.now()}
		}
	}
	w.mu.Unlock()
	w.linksChanged()
}

// Slow makes everything from one host to another take so much longer.
func (w *World) Slow(from, to string, by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links.slow[way{from, to}] = by
}

// isolated says whether a way between a host and one of a coordinator is cut. The lock
// is held.
func (w *World) isolated(host string) bool {
	for cut, is := range w.links.cut {
		if is && (cut.from == host && w.coordinates(cut.to) || cut.to == host && w.coordinates(cut.from)) {
			return true
		}
	}
	return false
}

// coordinates says whether a host is that of a coordinator. The lock is held.
func (w *World) coordinates(host string) bool {
	_, other := w.copies[host]
	return host == Coordinator || other || w.group.has(host)
}

// Stall holds up all that is sent from one host to another for a while.
func (w *World) Stall(from, to string, d time.Duration) {
	w.mu.Lock()
	w.stallLocked(from, to, d)
	w.mu.Unlock()
}

func (w *World) stallLocked(from, to string, d time.Duration) {
	w.links.stalled[way{from, to}] = w.now() + d
	for _, host := range []string{from, to} {
		if !w.coordinates(host) && (w.coordinates(from) || w.coordinates(to)) {
			w.links.away[host] = span{w.now(), w.now() + d}
		}
	}
	after(d, w.linksChanged)
	after(0, w.linksChanged)
}

// linksChanged lets what was held up go on, and makes those look that watch.
func (w *World) linksChanged() {
	w.mu.Lock()
	streams, watches := append([]*stream(nil), w.links.streams...), append([]func(){}, w.links.watches...)
	kept := w.links.streams[:0]
	for _, s := range w.links.streams {
		if !s.closed {
			kept = append(kept, s)
		}
	}
	clear(w.links.streams[len(kept):])
	w.links.streams = kept
	for _, s := range streams {
		s.kick()
	}
	w.group.look()
	w.mu.Unlock()
	for _, f := range watches {
		f()
	}
}

// stream is one direction of one connection: what is put in arrives in order,
// late when the way is cut meanwhile, or not at all when it is closed before.
type stream struct {
	w      *World
	name   string
	way    way
	to     *Process
	queue  []item
	timer  bool // a delivery is under way
	last   time.Duration
	ending bool // closed once all has arrived
	closed bool
}

type item struct {
	at      time.Duration
	deliver func() // without the lock
}

func (w *World) stream(name, from string, to *Process, host string) *stream {
	s := &stream{w: w, name: name, way: way{from, host}, to: to}
	w.links.streams = append(w.links.streams, s)
	return s
}

// put sends something. The lock is held.
func (s *stream) put(deliver func()) {
	if s.closed {
		return
	}
	at := s.w.now() + s.w.draw(s.name, latencyLow, latencyHigh) + s.w.links.slow[s.way]
	s.last = max(at, s.last+time.Microsecond)
	s.queue = append(s.queue, item{s.last, deliver})
	s.kick()
}

// kick starts the next delivery. The lock is held.
func (s *stream) kick() {
	if s.ending && len(s.queue) == 0 {
		s.close()
	}
	if s.timer || s.closed || len(s.queue) == 0 || s.held() {
		return
	}
	s.timer = true
	wait := s.queue[0].at - s.w.now()
	if wait < 0 { // it was held up: sent again after a while
		wait = s.w.draw(s.name+" again", time.Millisecond, 200*time.Millisecond)
		s.last = max(s.last, s.w.now()+wait)
	}
	after(wait, s.arrive)
}

func (s *stream) arrive() {
	w := s.w
	w.mu.Lock()
	if s.closed || len(s.queue) == 0 || s.held() {
		s.timer = false
		w.mu.Unlock()
		return
	}
	// All that was held up arrives together.
	var due []item
	for len(s.queue) > 0 && s.queue[0].at <= w.now() {
		due = append(due, s.queue[0])
		s.queue = s.queue[1:]
	}
	w.mu.Unlock()
	for _, i := range due {
		i.deliver()
	}
	w.mu.Lock()
	s.timer = false
	s.kick()
	w.mu.Unlock()
}

// held says whether nothing arrives now: the way is cut, or the process at its
// end stands still. The lock is held.
func (s *stream) held() bool {
	return !s.w.links.open(s.way.from, s.way.to) || s.to != nil && s.to.paused != nil
}

// close loses what has not arrived. The lock is held.
func (s *stream) close() { s.closed, s.queue = true, nil }

// finish closes it when all has arrived. The lock is held.
func (s *stream) finish() {
	s.ending = true
	s.kick()
}

// roundTrip is the time of a request and its answer between a process and a
// host, during which both must be able to talk.
func (p *Process) roundTrip(ctx context.Context, host string, more time.Duration) (ok bool, err error) {
	w := p.w
	w.mu.Lock()
	there := w.draw(p.name+" trip", 2*latencyLow, 2*latencyHigh) + w.links.slow[way{p.name, host}] + w.links.slow[way{host, p.name}] + more
	open := w.links.both(p.name, host)
	w.mu.Unlock()
	if !open {
		return false, p.wait(ctx, requestTimeout)
	}
	if err := p.wait(ctx, there); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.links.both(p.name, host), nil
}

// requestTimeout is how long a client waits for the answer to a request.
const requestTimeout = 2 * time.Second
