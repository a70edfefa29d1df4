package coordinator

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"mochi/coordinator/protocol"
)

// hello admits a replica, refuses it, or welcomes it again.
func (c *Core) hello(version int, h protocol.Hello) {
	if refused := c.differs(version, h); refused != nil {
		c.send(h.ID, protocol.Message{Refused: refused})
		c.report("replica refused", map[string]any{
			"replica": h.Name, "id": h.ID, "field": refused.Field, "want": refused.Want, "got": refused.Got,
		})
		return
	}
	c.helloAt = c.now
	if h.Data.Kind == "" {
		c.welcome(h.ID) // it will say Hello again once it knows what to load
		return
	}
	if c.data.Kind == "" {
		c.data = h.Data
		c.do(Remember{h.Data})
		c.report("data", map[string]any{"kind": h.Data.Kind, "train": h.Data.Train, "classes": h.Data.Classes, "digest": h.Data.Digest})
	}
	r := c.replicas[h.ID]
	if r != nil && c.round != nil && c.round.has(r) {
		c.welcome(h.ID) // a repeated Hello; it has its place
		return
	}
	if r == nil {
		r = &replica{seq: c.joins, rank: -1}
		c.joins++
		c.replicas[h.ID] = r
		c.report("replica joined", map[string]any{"replica": h.Name, "id": h.ID, "engine": h.Engine, "threads": h.Threads})
	}
	r.hello, r.seen, r.hinted = h, c.now, false
	if !r.resolving.IsZero() && h.Pending != nil && h.Pending.Step == r.resolves {
		c.welcome(h.ID) // said before it got the commit it is about to apply
		return
	}
	r.state, r.shards, r.pending, r.resolving = h.State, nil, h.Pending, time.Time{}
	if h.State != nil {
		r.shards = slices.Clone(h.State.Shards)
	}
	if h.State != nil && h.State.Step > c.head {
		c.report("replica ahead of the log", map[string]any{"replica": h.Name, "id": h.ID, "step": h.State.Step, "log": c.head})
		r.state, r.shards = nil, nil
	}
	c.welcome(h.ID)
	c.resolve()
}

func (c *Core) welcome(id string) {
	peers := append([]string(nil), c.cfg.Gossip...)
	for _, r := range c.sorted() {
		if r.hello.Gossip != "" && r.id() != id {
			peers = append(peers, r.hello.Gossip)
		}
	}
	c.send(id, protocol.Message{Welcome: &protocol.Welcome{
		Instance: c.cfg.Instance, Config: c.cfg.Training, Data: c.data, Gossip: peers,
	}})
}

// differs compares a replica with the job and names the first difference.
func (c *Core) differs(version int, h protocol.Hello) *protocol.Refused {
	const sameBuild = "run the same build of mochi on every host"
	const sameData = "give every replica the same data set (same files, same order)"
	const sameNumerics = "replicas agree to the bit only if they round alike: start all with the same --engine and --threads, on processors with the same instruction sets"
	have, want := h.Data, c.data
	numerics := h.Numerics
	if peers := c.sorted(); len(peers) > 0 && peers[0].id() != h.ID {
		numerics = peers[0].hello.Numerics
	}
	for _, f := range []struct {
		skip             bool
		field, want, got string
		hint             string
	}{
		{false, "protocol version", strconv.Itoa(protocol.Version), strconv.Itoa(version), sameBuild},
		{false, "binary", c.cfg.Binary, h.Binary, sameBuild},
		{false, "engine's numerics", numerics, h.Numerics, sameNumerics},
		{h.Config == "", "configuration", c.cfg.ConfigDigest, h.Config, "restart the replica: it takes its configuration from the coordinator"},
		{have.Kind == "" || want.Kind == "", "data kind", want.Kind, have.Kind, sameData},
		{have.Kind == "" || want.Kind == "", "data training samples", strconv.Itoa(want.Train), strconv.Itoa(have.Train), sameData},
		{have.Kind == "" || want.Kind == "", "data classes", strconv.Itoa(want.Classes), strconv.Itoa(have.Classes), sameData},
		{have.Kind == "" || want.Kind == "", "data digest", want.Digest, have.Digest, sameData},
	} {
		if !f.skip && f.want != f.got {
			return &protocol.Refused{Field: f.field, Want: f.want, Got: f.got, Hint: f.hint}
		}
	}
	return nil
}

// resolve sends the last commit of the log again to replicas outside the
// round that voted for it and did not see it: they still hold its gradients.
func (c *Core) resolve() {
	h := c.headCommit
	if h == nil {
		return
	}
	for _, r := range c.sorted() {
		p := r.pending
		if p == nil || c.round != nil && c.round.has(r) {
			continue
		}
		if p.Step != h.Step || p.Digest != h.Digest || r.state == nil || r.state.Step != h.Step-1 {
			continue
		}
		again := *h
		again.EndRound, again.Checkpoint, again.Final = true, false, false
		r.pending, r.resolving, r.resolves = nil, c.now, h.Step
		r.state, r.shards = nil, nil // between two steps until it answers
		c.send(r.id(), protocol.Message{Commit: &again})
		c.report("commit sent again", map[string]any{"replica": r.hello.Name, "id": r.id(), "step": h.Step})
	}
}

// leaving lets a replica go: a member after the next commit, others at once.
func (c *Core) leaving(r *replica) {
	if r.leaving {
		return
	}
	r.leaving = true
	if c.round == nil || !c.round.has(r) {
		c.dismiss(r)
	}
}

// dismiss says goodbye to a leaver. If it alone holds the job's state it
// stores that first.
func (c *Core) dismiss(r *replica) {
	delete(c.replicas, r.id())
	if c.holdsAll(r) && !c.covered(c.at) && !c.heldByOthers() {
		c.send(r.id(), protocol.Message{Snapshot: &protocol.Snapshot{Step: c.at}})
		c.upload = &upload{step: c.at, from: r.id(), since: c.now}
	}
	c.send(r.id(), protocol.Message{Stop: &protocol.Stop{Reason: "left the job as asked"}})
	c.report("replica left", map[string]any{"replica": r.hello.Name, "id": r.id()})
}

// holds says whether a replica is known to stand where the job stands.
func (c *Core) holds(r *replica) bool { return r.state != nil && r.state.Step == c.at }

// holdsAll says whether it holds all of the queue, too.
func (c *Core) holdsAll(r *replica) bool {
	return c.holds(r) && len(c.lacking([]*replica{r})) == 0
}

// heldByOthers says whether those who stay hold the job's state, and between
// them the queue.
func (c *Core) heldByOthers() bool {
	var others []*replica
	for _, r := range c.replicas {
		if !r.leaving && c.holds(r) {
			others = append(others, r)
		}
	}
	return len(others) > 0 && len(c.lacking(others)) == 0
}

// covered says whether the state after a step needs no upload: it is a
// checkpoint, on its way to become one, or what the seed gives.
func (c *Core) covered(step int64) bool {
	return step == 0 ||
		c.checkpoint != nil && c.checkpoint.Step == step ||
		c.upload != nil && c.upload.step == step && c.upload.from != ""
}

func (r *replica) String() string { return fmt.Sprintf("%s (%s)", r.hello.Name, r.id()) }
