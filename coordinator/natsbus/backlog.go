package natsbus

import (
	"sync"

	"mochi/coordinator/protocol"
)

// maxBacklog bounds the bytes of messages that nobody has read yet, as they came:
// far more than all replicas of a large job say in minutes, and little enough that
// a stranger who floods the bus does not end the process that reads it.
const maxBacklog = 256 << 20

// maxWaits is how much of that one sender may have: what one says too much, the others do
// not lose.
const maxWaits = maxBacklog / 4

// backlog is what has arrived and was not read yet, in the order in which it came.
// It grows with what arrives, up to a limit: what is beyond is lost, as messages
// may be. A heartbeat takes the place of the one before when its sender has said
// nothing else since: of those only the last one tells anything, and they are what
// comes by themselves while nobody reads. It is safe for concurrent use.
type backlog struct {
	mu      sync.Mutex
	queue   []*waiting
	beats   map[string]*waiting // by replica: its last message in queue, a heartbeat
	bytes   int
	by      map[string]int // bytes, by sender
	limit   int
	each    int           // limit of one sender
	dropped int           // since the backlog was full
	wake    chan struct{} // capacity 1
}

// waiting is one message of so many bytes.
type waiting struct {
	message protocol.Message
	bytes   int
}

func newBacklog(limit, each int) *backlog {
	return &backlog{beats: map[string]*waiting{}, by: map[string]int{}, limit: limit, each: each, wake: make(chan struct{}, 1)}
}

// put adds a message of so many bytes. It says whether this is the first one that
// did not fit any more.
func (b *backlog) put(m protocol.Message, bytes int) (full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.beats[m.From]
	switch {
	case m.Heartbeat != nil && last != nil:
		b.bytes += bytes - last.bytes
		b.by[m.From] += bytes - last.bytes
		last.message, last.bytes = m, bytes
		return false
	case b.bytes+bytes > b.limit || b.by[m.From]+bytes > b.each:
		b.dropped++
		return b.dropped == 1
	}
	w := &waiting{m, bytes}
	b.queue = append(b.queue, w)
	b.bytes += bytes
	b.by[m.From] += bytes
	if m.Heartbeat != nil {
		b.beats[m.From] = w
	} else {
		delete(b.beats, m.From)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return false
}

// take removes the oldest message, if there is one, and says how many were lost
// before it because there was no room.
func (b *backlog) take() (m protocol.Message, ok bool, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return m, false, 0
	}
	w := b.queue[0]
	b.queue[0] = nil
	if b.queue = b.queue[1:]; len(b.queue) == 0 {
		b.queue = nil // the memory of a long one
	}
	b.bytes -= w.bytes
	if b.by[w.message.From] -= w.bytes; b.by[w.message.From] == 0 {
		delete(b.by, w.message.From)
	}
	if b.beats[w.message.From] == w {
		delete(b.beats, w.message.From)
	}
	if b.bytes < b.limit/2 {
		dropped, b.dropped = b.dropped, 0
	}
	return w.message, true, dropped
}
