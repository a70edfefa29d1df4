package coordinator

import (
	"cmp"
	"slices"
	"strconv"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
)

// hello admits a replica, refuses it, or welcomes it again. term is the highest of a
// leader that it has obeyed.
func (c *Core) hello(version int, term uint64, h protocol.Hello) {
	if version == protocol.Version && c.obeysAnother(term, h.Leader) {
		c.helloOfForeigner(term, h)
		return
	}
	delete(c.foreign, h.ID)
	if refused := c.differs(version, h); refused != nil {
		c.send(h.ID, protocol.Message{Refused: refused})
		c.patience.Came(h.ID)
		c.report(event.Refused{
			Replica: event.Replica{Name: h.Name, ID: h.ID}, Field: refused.Field, Want: refused.Want, Got: refused.Got,
		})
		return
	}
	if why := c.jury.Banned(h.ID, h.Name); why != "" {
		c.send(h.ID, protocol.Message{Refused: wrongArithmetic(h, why)})
		c.report(event.Refused{
			Replica: event.Replica{Name: h.Name, ID: h.ID}, Field: fieldResults, Want: "those of the others", Got: "wrong ones",
		})
		return
	}
	delete(c.unfit, h.ID)
	c.course.AtLeast(h.Round)
	c.patience.Greeted(c.now)
	c.patience.Came(h.ID)
	delete(c.asleep, h.ID)
	if h.Data.Kind == "" {
		c.welcome(h.ID) // it will say Hello again once it knows what to load
		return
	}
	if c.data.Kind == "" {
		c.data = h.Data
		c.do(Remember{h.Data})
		c.report(event.Data{Kind: h.Data.Kind, Train: h.Data.Train, Classes: h.Data.Classes, Digest: h.Data.Digest})
	}
	r := c.roster.Get(h.ID)
	if r != nil && c.isMember(r) {
		c.welcome(h.ID) // a repeated Hello; it is at work
		return
	}
	if r == nil {
		r = c.roster.Admit(h, c.now)
		c.report(event.Joined{Replica: about(r), Engine: h.Engine, Threads: h.Threads})
	}
	c.blame.Returned(r.Name(), r.ID())
	if !r.Says(h, c.now) {
		c.welcome(h.ID)
		return
	}
	c.compare(r)
	c.findUpload(r)
	c.welcome(h.ID)
	c.sendAgain()
}

// findUpload goes on with a checkpoint that a replica is sending already, if it is of use.
func (c *Core) findUpload(r *roster.Replica) {
	if step := r.Hello().Uploading; step > c.restorable() && c.history.Has(step) {
		c.upload.Found(r.ID(), step, c.now)
	}
}

func (c *Core) welcome(id string) {
	c.send(id, protocol.Message{Welcome: &protocol.Welcome{
		Instance: c.cfg.Instance, Config: c.cfg.Training, Data: c.data,
		Gossip: slices.Concat(c.cfg.Gossip, c.roster.Gossip(id)), Coordinators: c.cfg.Coordinators,
	}})
}

// differs compares a replica with the job and names the first difference.
func (c *Core) differs(version int, h protocol.Hello) *protocol.Refused {
	const sameBuild = "run the same build of mochi on every host"
	const sameData = "give every replica the same data set (same files, same order)"
	const sameNumerics = "replicas agree to the bit only if they round alike: start all with the same --engine and --threads, on processors with the same instruction sets"
	const sameDecoder = "decoders differ in the pixels they make: use builds with the same tags (mochi version says what decodes JPEG) and the same libjpeg-turbo on every host"
	have, want := h.Data, c.data
	numerics, jpeg := h.Numerics, have.JPEG
	if peers := c.roster.All(); len(peers) > 0 && peers[0].ID() != h.ID {
		numerics, jpeg = peers[0].Hello().Numerics, peers[0].Hello().Data.JPEG
	}
	for _, f := range []struct {
		skip             bool
		field, want, got string
		hint             string
	}{
		{false, "protocol version", strconv.Itoa(protocol.Version), strconv.Itoa(version), sameBuild},
		{have.JPEG == "" || jpeg == "", "JPEG decoder", jpeg, have.JPEG, sameDecoder}, // before binary, which differs too then and tells less
		{false, "binary", c.cfg.Binary, h.Binary, sameBuild},
		{false, "engine's numerics", numerics, h.Numerics, sameNumerics},
		{h.Config == "", "configuration", c.cfg.ConfigDigest, h.Config, "restart the replica: it takes its configuration from the coordinator"},
		{have.Kind == "" || want.Kind == "", "data kind", want.Kind, have.Kind, sameData},
		{have.Kind == "", "classes", cmp.Or(config.ClassesDigest(c.cfg.Training.Classes), "all"), cmp.Or(have.ClassList, "all"), "give every replica the coordinator's --classes"},
		{have.Kind == "" || want.Kind == "", "data training samples", strconv.Itoa(want.Train), strconv.Itoa(have.Train), sameData},
		{have.Kind == "" || want.Kind == "", "data classes", strconv.Itoa(want.Classes), strconv.Itoa(have.Classes), sameData},
		{have.Kind == "" || want.Kind == "", "data digest", want.Digest, have.Digest, sameData},
		{false, "data of shards", "", want.OtherShards(have), "they have the job's names and lengths, and another content: give every replica the same files"},
	} {
		if !f.skip && f.want != f.got {
			return &protocol.Refused{Field: f.field, Want: f.want, Got: f.got, Hint: f.hint}
		}
	}
	return nil
}

// isMember says whether a replica is a member of the round in hand.
func (c *Core) isMember(r *roster.Replica) bool {
	return c.course.Round() != nil && c.course.Round().Has(r)
}

// sendAgain sends the last commit of the log again to replicas outside the
// round that voted for it and did not see it: they still hold its gradients.
func (c *Core) sendAgain() {
	last := c.history.Last()
	if last == nil || last.Round == 0 { // given back by a replica of an earlier build: its learning rate is not known
		return
	}
	for _, r := range c.roster.All() {
		if c.isMember(r) || !r.Missed(last) {
			continue
		}
		again := *last
		c.seal(&again) // the log may have it of an earlier build
		again.EndRound, again.Checkpoint, again.Final = true, false, false
		r.SentAgain(last.Step, c.now)
		c.send(r.ID(), protocol.Message{Commit: &again})
		c.report(event.SentAgain{Replica: about(r), Step: last.Step})
	}
}

// safe says whether the state after a step needs no upload: it is a checkpoint,
// on its way to become one, or what the seed gives.
func (c *Core) safe(step int64) bool {
	return c.history.Restorable(step) || c.upload.OnItsWay(step)
}
