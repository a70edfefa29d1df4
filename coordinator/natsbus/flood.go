package natsbus

import (
	"time"

	"mochi/coordinator/protocol"
)

// What one sender may say. A replica says some hundreds of messages a second at most, of a
// job whose steps take milliseconds, and a few MiB of them; in a hurry, when many commits
// are asked of it, some ten MiB at once. What is above all that is a flood, whoever it is:
// it would fill the memory of the process that reads it, or keep the others waiting.
const (
	floodMessages = 10_000   // a second, in the long run
	floodBurst    = 100_000  // at once
	floodBytes    = 16 << 20 // a second, in the long run
	floodAtOnce   = 64 << 20 // bytes
	floodToldFor  = 10 * time.Second
	floodSenders  = 4096 // of whom it is known what they said lately

	// All senders together, however many names somebody has. Above that only what is little
	// counts: some hundred messages a second, which is what a replica needs to say.
	allMessages  = 60_000
	allAtOnce    = 200_000
	allBytes     = 128 << 20
	allBytesOnce = 512 << 20
	leanMessages = 300
	leanAtOnce   = 3_000
	leanBytes    = 4 << 20
	leanBytesMax = 32 << 20
)

// bucket fills with time, up to what it holds.
type bucket struct{ messages, bytes float64 }

func (b *bucket) fill(seconds, messages, mostMessages, bytes, mostBytes float64) {
	b.messages = min(mostMessages, b.messages+seconds*messages)
	b.bytes = min(mostBytes, b.bytes+seconds*bytes)
}

// has says whether there is room for a message of so many bytes.
func (b *bucket) has(bytes int) bool { return b.messages >= 1 && b.bytes >= float64(bytes) }

// take takes it, down to nothing.
func (b *bucket) take(bytes int) {
	b.messages, b.bytes = max(0, b.messages-1), max(0, b.bytes-float64(bytes))
}

// allowances is what each sender may say still, and all of them together. They are looked at
// before a message is decoded, so that a flood costs little.
type allowances struct {
	of  map[string]*allowance
	all bucket
	at  time.Time // as of when all is
}

func newAllowances() *allowances {
	return &allowances{of: map[string]*allowance{}, all: bucket{allAtOnce, allBytesOnce}}
}

type allowance struct {
	most, lean bucket    // what it may say; what it may say when all say too much
	at         time.Time // as of when
	told       time.Time // when people were told that it floods
}

// verdict on a message.
type verdict struct {
	flood bool // it does not count
	first bool // and people should be told
}

// says counts a message of so many bytes.
func (a *allowances) says(from string, bytes int, now time.Time) verdict {
	if !a.at.IsZero() {
		a.all.fill(max(0, now.Sub(a.at).Seconds()), allMessages, allAtOnce, allBytes, allBytesOnce)
	}
	a.at = now
	one := a.of[from]
	if one == nil {
		a.forget(now)
		one = &allowance{most: bucket{floodBurst, floodAtOnce}, lean: bucket{leanAtOnce, leanBytesMax}, at: now}
		a.of[from] = one
	}
	one.fill(now)
	if !one.most.has(bytes) || !a.all.has(bytes) && !one.lean.has(bytes) {
		first := now.Sub(one.told) >= floodToldFor
		if first {
			one.told = now
		}
		return verdict{flood: true, first: first}
	}
	one.most.take(bytes)
	one.lean.take(bytes)
	a.all.take(bytes)
	return verdict{}
}

func (o *allowance) fill(now time.Time) {
	d := max(0, now.Sub(o.at).Seconds())
	o.most.fill(d, floodMessages, floodBurst, floodBytes, floodAtOnce)
	o.lean.fill(d, leanMessages, leanAtOnce, leanBytes, leanBytesMax)
	o.at = now
}

// forget makes room: whoever has said nothing lately may say all there is to say.
func (a *allowances) forget(now time.Time) {
	if len(a.of) < floodSenders {
		return
	}
	for from, one := range a.of {
		if one.fill(now); one.most == (bucket{floodBurst, floodAtOnce}) && one.lean == (bucket{leanAtOnce, leanBytesMax}) {
			delete(a.of, from)
		}
	}
}

// hears counts what each replica says. Who floods is cut off, which tells the coordinator
// that it is lost, and named; what it says beyond is not read. With a NATS cluster its
// connection stays.
func (c *Coordinator) hears() func(subject string, bytes int) bool {
	said := newAllowances() // one goroutine of NATS calls
	return func(subject string, bytes int) bool {
		from := protocol.Sender(subject)
		v := said.says(from, bytes, c.opts.now())
		if !v.flood {
			return true
		}
		if v.first {
			c.opts.Log.Error("a replica says more than any job needs: it is cut off, and what it says is not read",
				"id", from, "messages_per_second", floodMessages, "bytes_per_second", floodBytes)
		}
		if id, open := c.clients.of(from); open && c.opts.Server != nil {
			_ = c.opts.Server.Kick(id) // or it has ended meanwhile
		}
		return false
	}
}
