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
	floodBurst    = 200_000  // at once
	floodBytes    = 16 << 20 // a second, in the long run
	floodAtOnce   = 64 << 20 // bytes
	floodToldFor  = 10 * time.Second
	floodSenders  = 4096 // of whom it is known what they said lately
)

// allowances is what each sender may say still: buckets that fill with time. They are looked
// at before a message is decoded, so that a flood costs little.
type allowances map[string]*allowance

type allowance struct {
	messages, bytes float64
	at              time.Time // as of when
	told            time.Time // when people were told that it floods
}

// verdict on a message.
type verdict struct {
	flood bool // it does not count
	first bool // and people should be told
}

// says counts a message of so many bytes.
func (a allowances) says(from string, bytes int, now time.Time) verdict {
	one := a[from]
	if one == nil {
		a.forget(now)
		one = &allowance{messages: floodBurst, bytes: floodAtOnce, at: now}
		a[from] = one
	}
	one.fill(now)
	if one.messages < 1 || one.bytes < float64(bytes) {
		first := now.Sub(one.told) >= floodToldFor
		if first {
			one.told = now
		}
		return verdict{flood: true, first: first}
	}
	one.messages--
	one.bytes -= float64(bytes)
	return verdict{}
}

func (o *allowance) fill(now time.Time) {
	d := max(0, now.Sub(o.at).Seconds())
	o.messages = min(floodBurst, o.messages+d*floodMessages)
	o.bytes = min(floodAtOnce, o.bytes+d*floodBytes)
	o.at = now
}

// forget makes room: whoever has said nothing lately may say all there is to say.
func (a allowances) forget(now time.Time) {
	if len(a) < floodSenders {
		return
	}
	for from, one := range a {
		if one.fill(now); one.messages == floodBurst && one.bytes == floodAtOnce {
			delete(a, from)
		}
	}
}

// hears counts what each replica says. Who floods is cut off, which tells the coordinator
// that it is lost, and named; what it says beyond is not read. With a NATS cluster its
// connection stays.
func (c *Coordinator) hears() func(subject string, bytes int) bool {
	said := allowances{} // one goroutine of NATS calls
	return func(subject string, bytes int) bool {
		from := protocol.Sender(subject)
		v := said.says(from, bytes, time.Now())
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
