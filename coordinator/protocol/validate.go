package protocol

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"mochi/coordinator/protocol/config"
)

// Bounds are what a message may say at most. Those of strings and of lists whose
// length no job decides are constants.
type Bounds struct {
	Groups int  // BatchNorm groups of a batch
	Shards int  // of the queue
	Batch  int  // samples
	Queue  int  // slots
	known  bool // of one job: a list by shard has all of them
}

// AnyJob are the bounds of all jobs together.
func AnyJob() Bounds {
	return Bounds{Groups: config.MostGroups, Shards: config.MostShards, Batch: 1 << 24, Queue: 1 << 30}
}

// BoundsOf are those of one job.
func BoundsOf(job config.Job) Bounds {
	b := Bounds{Groups: 0, Shards: job.Shards(), Batch: job.Batch, Queue: job.Queue, known: true}
	if job.BNGroup > 0 {
		b.Groups = job.Groups()
	}
	return b
}

// What strings and lists may have.
const (
	maxID      = 300      // bytes: a name of a host, and what makes it unique
	maxWord    = 256      // of a digest, a phase, a version
	maxText    = 4 << 10  // of an address, a build, a reason
	maxError   = 64 << 10 // of an error, which may list many files
	maxPhases  = 64       // of a step, versions of libraries
	maxMembers = 4096     // of a round, and what is told of all replicas
)

// ErrInvalid is wrapped by every error of Validate.
var ErrInvalid = errors.New("message out of bounds")

// Validate says what is wrong with a message that came from somebody: lengths,
// characters, numbers out of their range. What passes cannot bring down or fill the
// memory of whoever takes it. Whether it belongs to this round and this step, and
// whether its sender is who it says, is not looked at here.
func (m Message) Validate(b Bounds) error {
	c := checks{b: b}
	c.id("from", m.From, true)
	c.term("term", m.Term)
	said := 0
	for _, one := range c.parts(m) {
		if one.there {
			said++
			c.where = one.name
			one.check()
		}
	}
	c.where = "message"
	if said > 1 {
		c.fault("", "says %d things at once", said)
	}
	if c.err == nil {
		return nil
	}
	from := ""
	if m.From != "" {
		from = fmt.Sprintf(" from %.60q", m.From)
	}
	return fmt.Errorf("%w%s: %w", ErrInvalid, from, c.err)
}

// part is one of the things that a message may say.
type part struct {
	name  string
	there bool
	check func()
}

// parts lists all of them: TestEveryPartIsChecked finds one that is missing.
func (c *checks) parts(m Message) []part {
	return []part{
		{"hello", m.Hello != nil, func() { c.hello(m.Hello) }},
		{"ready", m.Ready != nil, func() { c.ready(m.Ready) }},
		{"applied", m.Applied != nil, func() { c.applied(m.Applied) }},
		{"failed", m.Failed != nil, func() { c.failed(m.Failed) }},
		{"leaving", m.Leaving != nil, func() {
			c.text("reason", m.Leaving.Reason, maxText)
			c.grace(m.Leaving.GraceMS)
		}},
		{"heartbeat", m.Heartbeat != nil, func() { c.heartbeat(m.Heartbeat) }},
		{"recalled", m.Recalled != nil, func() { c.recalled(m.Recalled) }},
		{"drain", m.Drain != nil, func() {
			c.text("replica", m.Drain.Replica, maxID)
			c.grace(m.Drain.GraceMS)
		}},
		{"drained", m.Drained != nil, func() {
			c.texts("leaving", m.Drained.Leaving, maxMembers, maxID)
			c.texts("left", m.Drained.Left, maxMembers, maxID)
			c.texts("others", m.Drained.Others, maxMembers, maxID)
		}},
		{"welcome", m.Welcome != nil, func() { c.welcome(m.Welcome) }},
		{"refused", m.Refused != nil, func() {
			for _, s := range []string{m.Refused.Field, m.Refused.Want, m.Refused.Got, m.Refused.Hint} {
				c.text("field", s, maxError)
			}
		}},
		{"round", m.Round != nil, func() { c.membership(m.Round) }},
		{"commit", m.Commit != nil, func() { c.commit(m.Commit, c.b) }},
		{"snapshot", m.Snapshot != nil, func() { c.step("step", m.Snapshot.Step) }},
		{"stop", m.Stop != nil, func() { c.text("reason", m.Stop.Reason, maxError) }},
		{"again", m.Again != nil, func() { c.text("instance", m.Again.Instance, maxWord) }},
		{"recall", m.Recall != nil, func() { c.step("from", m.Recall.From) }},
	}
}

// checks collects the first fault.
type checks struct {
	b     Bounds
	where string
	err   error
}

func (c *checks) fault(field, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %s", path.Join(c.where, field), fmt.Sprintf(format, args...))
	}
}

// id is a replica's: what subjects of messages can have.
func (c *checks) id(field, id string, mayLack bool) {
	switch {
	case id == "" && !mayLack:
		c.fault(field, "is missing")
	case len(id) > maxID:
		c.fault(field, "has %d bytes, at most %d", len(id), maxID)
	}
	for i := range len(id) {
		switch b := id[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_':
		default:
			c.fault(field, "%.60q: letters, digits, '-' and '_' only", id)
			return
		}
	}
}

// text is for people, or compared as it is.
func (c *checks) text(field, s string, most int) {
	if len(s) > most {
		c.fault(field, "has %d bytes, at most %d", len(s), most)
	}
}

func (c *checks) texts(field string, list []string, most, longest int) {
	c.count(field, len(list), most)
	for _, s := range list {
		c.text(field, s, longest)
	}
}

func (c *checks) count(field string, n, most int) {
	if n > most {
		c.fault(field, "has %d entries, at most %d", n, most)
	}
}

// number is one from least to below end.
func (c *checks) number(field string, n, least, end int64) {
	if n < least || n >= end {
		c.fault(field, "is %d, from %d to %d", n, least, end-1)
	}
}

// step is a number of steps, samples or pieces of work.
func (c *checks) step(field string, n int64) { c.number(field, n, 0, 1<<62) }

// What counts rounds and terms goes on from the highest that anybody has heard of. So
// one that nobody can reach would be the last.
const maxRound = 1 << 48

func (c *checks) round(field string, n int64) { c.number(field, n, -1, maxRound) }

func (c *checks) term(field string, n uint64) {
	if n >= maxRound {
		c.fault(field, "is %d, from 0 to %d", n, uint64(maxRound-1))
	}
}

// maxGrace is some years, in ms.
const maxGrace = 1 << 37

func (c *checks) grace(ms int64) { c.number("grace_ms", ms, 0, maxGrace) }

// numbers are indices below end, of things of which each may be named once.
func (c *checks) numbers(field string, list []int, end int) {
	c.count(field, len(list), end)
	for _, n := range list {
		c.number(field, int64(n), 0, int64(end))
	}
	if c.err != nil {
		return
	}
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) < len(list) {
		c.fault(field, "names one twice")
	}
}

func (c *checks) phases(field string, ms map[string]float64) {
	c.count(field, len(ms), maxPhases)
	for name := range ms {
		c.text(field, name, maxWord)
	}
}

// digests of shards: those of all, or none where the job has none here.
func (c *checks) shards(field string, list []string) {
	c.texts(field, list, c.b.Shards, maxWord)
	if c.b.known && len(list) != 0 && len(list) != c.b.Shards {
		c.fault(field, "has %d entries of %d shards", len(list), c.b.Shards)
	}
}

func (c *checks) data(field string, d Data) {
	c.number(field+".train", int64(d.Train), 0, 1<<40)
	c.number(field+".classes", int64(d.Classes), 0, 1<<31)
	for _, s := range []string{d.Kind, d.Digest, d.JPEG} {
		c.text(field, s, maxWord)
	}
	c.text(field, d.Numerics, maxText)
}

func (c *checks) position(field string, p *Position) {
	c.step(field+".step", p.Step)
	c.text(field+".digest", p.Digest, maxWord)
	c.texts(field+".shards", p.Shards, config.MostShards, maxWord) // may be of another job
}
