package quorum

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// item is something that the follower is told, or that tells the deliverer where the log
// stands. One of its fields is set, besides counts.
type item struct {
	line   line
	n      int64 // of line
	stored *Checkpoint
	over   *Outcome
	config string
	begin  uint64 // a leadership begins, in this term of raft

	counts map[string]int64 // lines of each file before it; nil: not told
}

// mostQueued is how many bytes of lines wait for the follower in memory. When there are
// more (its disk is full, and the log's is not) they are let go of: other members have
// them.
const mostQueued = 64 << 20

// How long to wait before what failed is tried again.
const (
	againAfter  = 100 * time.Millisecond
	againAtMost = 5 * time.Second
)

// deliverer tells a follower what is applied, on a goroutine of its own.
type deliverer struct {
	node   *Node
	follow Follower
	judge  uint64 // begins of later terms come behind all lines that were there at the start

	mu      sync.Mutex
	queue   []item
	bytes   int
	wake    chan struct{} // capacity 1
	held    map[string]int64
	want    map[string]int64 // what is applied
	begun   uint64           // the last begin that was passed on
	busy    bool
	changed chan struct{} // closed and made anew when held, begun or busy change
	trouble error
}

func newDeliverer(n *Node) *deliverer {
	return &deliverer{
		node: n, follow: n.o.Follow, wake: make(chan struct{}, 1),
		held: map[string]int64{}, want: map[string]int64{}, changed: make(chan struct{}),
	}
}

// put queues items.
func (d *deliverer) put(items []item) {
	d.mu.Lock()
	for _, it := range items {
		if it.n > 0 {
			d.want[it.line.file] = it.n
			if d.bytes > mostQueued {
				continue // it is fetched later
			}
			d.bytes += len(it.line.text)
		}
		maps.Copy(d.want, it.counts)
		d.queue = append(d.queue, it)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run tells the follower until ctx ends.
func (d *deliverer) run(ctx context.Context) {
	for _, file := range d.node.o.Files {
		d.know(ctx, file)
	}
	for ctx.Err() == nil {
		d.mu.Lock()
		var next *item
		if len(d.queue) > 0 {
			next = &d.queue[0]
			d.queue = d.queue[1:]
			d.bytes -= len(next.line.text)
		}
		d.set(func() { d.busy = next != nil })
		want := maps.Clone(d.want)
		d.mu.Unlock()
		if next != nil {
			d.tell(ctx, next)
			continue
		}
		d.fill(ctx, want) // what was let go of
		select {
		case <-d.wake:
		case <-ctx.Done():
		}
	}
}

// set changes what others wait for. mu is held.
func (d *deliverer) set(change func()) {
	change()
	close(d.changed)
	d.changed = make(chan struct{})
}

// retry does something until it succeeds or ctx ends.
func (d *deliverer) retry(ctx context.Context, what string, do func() error) {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		err := do()
		d.mu.Lock()
		if d.trouble = nil; err != nil {
			d.trouble = fmt.Errorf("%s: %w", what, err)
		}
		d.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// know asks how many lines of a file are here, once.
func (d *deliverer) know(ctx context.Context, file string) int64 {
	d.mu.Lock()
	n, ok := d.held[file]
	d.mu.Unlock()
	if ok {
		return n
	}
	d.retry(ctx, "count the lines of "+file, func() (err error) {
		n, err = d.follow.Held(file)
		return err
	})
	if ctx.Err() == nil {
		d.hold(file, n)
	}
	return n
}

func (d *deliverer) hold(file string, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set(func() { d.held[file] = n })
}

// tell passes one item on.
func (d *deliverer) tell(ctx context.Context, it *item) {
	d.fill(ctx, it.counts)
	switch {
	case ctx.Err() != nil:
	case it.n > 0:
		if it.n > d.know(ctx, it.line.file)+1 {
			d.fill(ctx, map[string]int64{it.line.file: it.n - 1})
		}
		d.line(ctx, it.line.file, it.n, it.line.text)
	case it.stored != nil:
		d.follow.Stored(*it.stored)
	case it.over != nil:
		d.follow.Over(*it.over)
	case it.config != "":
		d.follow.Configured(it.config)
	case it.begin > 0:
		d.compare(ctx, it)
		d.mu.Lock()
		d.set(func() { d.begun = max(d.begun, it.begin) })
		d.mu.Unlock()
	}
}

// line tells a line that is not held yet.
func (d *deliverer) line(ctx context.Context, file string, n int64, text []byte) {
	if held := d.know(ctx, file); n <= held || ctx.Err() != nil {
		return
	}
	d.retry(ctx, fmt.Sprintf("write line %d of %s", n, file), func() error { return d.follow.Line(file, n, text) })
	if ctx.Err() == nil {
		d.hold(file, n)
	}
}

// compare ends this member when its files hold lines that the log does not have: they
// are of another history.
func (d *deliverer) compare(ctx context.Context, it *item) {
	if it.begin <= d.judge || len(it.counts) == 0 {
		return // it comes again after a start, and the lines behind it too; or there are none yet
	}
	for _, file := range d.node.o.Files {
		held := d.know(ctx, file)
		if ctx.Err() == nil && held > it.counts[file] {
			d.node.fail(fmt.Errorf("%s has %d lines here, %d in the group: it is of another run; move the run folder of this coordinator aside, and it is filled from the others", file, held, it.counts[file]))
		}
	}
}

// fill fetches lines from other members until so many of each file are here.
func (d *deliverer) fill(ctx context.Context, want map[string]int64) {
	for _, file := range slices.Sorted(maps.Keys(want)) {
		if d.know(ctx, file) >= want[file] {
			continue
		}
		if d.know(ctx, file) > 0 {
			d.retry(ctx, "compare "+file+" with the others'", func() error { return d.joins(ctx, file) })
		}
		for d.know(ctx, file) < want[file] && ctx.Err() == nil {
			d.retry(ctx, "fetch lines of "+file, func() error { return d.fetch(ctx, file, want[file]) })
		}
	}
}

// fetch gets some of the lines that are missing.
func (d *deliverer) fetch(ctx context.Context, file string, want int64) error {
	next := d.know(ctx, file) + 1
	lines, err := d.node.linesFromOthers(ctx, file, next)
	if err != nil {
		return err
	}
	for i, text := range lines {
		if n := next + int64(i); n <= want {
			d.line(ctx, file, n, text)
		}
	}
	return nil
}

// joins compares the last line that is here with the others': what is fetched stands
// behind it.
func (d *deliverer) joins(ctx context.Context, file string) error {
	n := d.know(ctx, file)
	own, err := d.follow.Read(file, n, 1)
	if err != nil || len(own) == 0 {
		return fmt.Errorf("line %d cannot be read: %w", n, err)
	}
	others, err := d.node.linesFromOthers(ctx, file, n)
	if err != nil {
		return err
	}
	if !bytes.Equal(own[0], others[0]) {
		d.node.fail(fmt.Errorf("line %d of %s is another one here than in the group: it is of another run; move the run folder of this coordinator aside, and it is filled from the others", n, file))
		<-ctx.Done()
	}
	return nil
}

// wait returns when a condition holds, which is looked at with mu held.
func (d *deliverer) wait(ctx context.Context, until func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := until(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// passed waits until a leadership's begin, and all before it, was passed on.
func (d *deliverer) passed(ctx context.Context, begin uint64) error {
	return d.wait(ctx, func() bool { return d.begun >= begin })
}

// reached waits until so many lines are here.
func (d *deliverer) reached(ctx context.Context, counts map[string]int64) error {
	return d.wait(ctx, func() bool {
		for file, n := range counts {
			if d.held[file] < n {
				return false
			}
		}
		return true
	})
}

// lines are how many are here, by file.
func (d *deliverer) lines() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.held)
}

func (d *deliverer) troubled() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble
}
