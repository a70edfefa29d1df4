package protocol

import (
	"path/filepath"
	"slices"

	"mochi/coordinator/protocol/config"
)

// hello may come from a replica that was in another job: what it holds is compared by
// the core, not measured by this job.
func (c *checks) hello(h *Hello) {
	c.id("id", h.ID, false)
	c.text("name", h.Name, maxID)
	for _, s := range []string{h.Binary, h.Numerics, h.BulkURL, h.Gossip, h.Device} {
		c.text("binary, numerics, bulk_url, gossip, device", s, maxText)
	}
	for _, s := range []string{h.Config, h.Engine, h.Leader} {
		c.text("config, engine, leader", s, maxWord)
	}
	c.data("data", h.Data)
	c.number("threads", int64(h.Threads), 0, 1<<20)
	c.round("round", h.Round)
	c.count("members", len(h.Members), maxMembers)
	for _, id := range h.Members {
		c.id("members", id, false)
	}
	if h.State != nil {
		c.position("state", h.State)
	}
	c.count("stored", len(h.Stored), maxPhases)
	for i := range h.Stored {
		c.position("stored", &h.Stored[i])
	}
	if p := h.Pending; p != nil {
		c.round("pending.round", p.Round)
		c.step("pending.step", p.Step)
		c.text("pending.digest", p.Digest, maxWord)
	}
	if head := h.Head; head != nil {
		c.step("head.first", head.First)
		c.number("head.step", head.Step, head.First, 1<<62)
		for _, s := range []string{head.Chain, head.Body, head.Seal} {
			c.text("head.chain", s, maxWord)
		}
		c.term("head.term", head.Term)
	}
	c.count("versions", len(h.Versions), maxPhases)
	for name, version := range h.Versions {
		c.text("versions", name, maxWord)
		c.text("versions", version, maxWord)
	}
}

func (c *checks) ready(r *Ready) {
	c.round("round", r.Round)
	c.step("step", r.Step)
	c.text("digest", r.Digest, maxWord)
	groups := make([]int, len(r.Groups))
	for i, g := range r.Groups {
		groups[i] = g.Group
	}
	c.numbers("groups", groups, c.b.Groups)
	if r.BusyMS < 0 {
		c.fault("busy_ms", "is %v", r.BusyMS)
	}
	c.phases("phases", r.Phases)
	c.phases("cpu", r.CPU)
	c.recounts(r.Recounts)
	c.text("keys", r.Keys, maxWord)
	if r.Sums != nil {
		c.number("sums.wrong", int64(r.Sums.Wrong), 0, 1<<40)
	}
}

// recounts are of groups that are computed by a member, or once more by another.
func (c *checks) recounts(list []Recount) {
	c.count("recounts", len(list), 2*c.b.Groups)
	for _, r := range list {
		c.number("recounts.group", int64(r.Group), 0, int64(c.b.Groups))
		c.text("recounts.key", r.Key, maxWord)
		c.text("recounts.query", r.Query, maxWord)
	}
}

func (c *checks) applied(a *Applied) {
	c.round("round", a.Round)
	c.step("step", a.Step)
	c.text("digest", a.Digest, maxWord)
	c.text("state_digest", a.StateDigest, maxWord)
	c.shards("shards", a.Shards)
	c.numbers("damaged", a.Damaged, c.b.Shards)
	c.phases("phases", a.Phases)
	c.phases("cpu", a.CPU)
}

func (c *checks) failed(f *Failed) {
	c.round("round", f.Round)
	c.step("step", f.Step)
	c.step("unsaved", f.Unsaved)
	c.id("suspect", f.Suspect, true)
	c.text("error", f.Error, maxError)
	c.recounts(f.Recounts)
	c.text("keys", f.Keys, maxWord)
	c.numbers("damaged", f.Damaged, c.b.Shards)
}

func (c *checks) heartbeat(h *Heartbeat) {
	c.text("instance", h.Instance, maxWord)
	c.round("round", h.Round)
	c.step("step", h.Step)
	c.text("phase", h.Phase, maxWord)
	c.step("done", h.Done)
}

// recalled are commits of this run of the job, which may have had another batch.
func (c *checks) recalled(r *Recalled) {
	c.step("from", r.From)
	c.count("commits", len(r.Commits), KeptCommits)
	for i := range r.Commits {
		c.commit(&r.Commits[i], AnyJob())
	}
}

func (c *checks) commit(m *Commit, b Bounds) {
	c.number("step", m.Step, 1, 1<<62)
	c.round("round", m.Round)
	c.text("chain", m.Chain, maxWord)
	c.text("seal", m.Seal, maxWord)
	c.term("term", m.Term)
	c.number("epoch", int64(m.Epoch), 0, 1<<31)
	c.step("cursor", m.Cursor)
	c.number("batch", int64(m.Batch), 0, int64(b.Batch)+1)
	c.number("queue_start", int64(m.QueueStart), 0, max(1, int64(b.Queue)))
	if m.LR < 0 || m.Momentum < 0 || m.Momentum >= 1 {
		c.fault("lr", "%v and momentum %v: out of range", m.LR, m.Momentum)
	}
	c.text("digest", m.Digest, maxWord)
	groups := make([]int, len(m.Groups))
	for i, g := range m.Groups {
		groups[i] = g.Group
	}
	c.numbers("groups", groups, b.Groups)
}

func (c *checks) welcome(w *Welcome) {
	c.text("instance", w.Instance, maxWord)
	job := w.Config
	if job.QueueCopies == "1" {
		job.QueueCopies = "2" // a bad idea of whoever starts the job, and no danger here
	}
	if err := job.Validate(); err != nil {
		c.fault("config", "%v", err)
	}
	c.data("data", w.Data)
	c.texts("gossip", w.Gossip, maxMembers, maxText)
	c.texts("coordinators", w.Coordinators, maxMembers, maxText)
}

// KeyLen is the length of a round's key, bytes.
const KeyLen = 32

func (c *checks) membership(r *Round) {
	c.round("round", r.Round)
	c.number("step", r.Step, 1, 1<<62)
	c.step("cursor", r.Cursor)
	world := len(r.Members)
	c.count("members", world, maxMembers)
	for _, m := range r.Members {
		c.id("members.id", m.ID, false)
		c.text("members.name", m.Name, maxID)
		c.text("members.bulk_url", m.BulkURL, maxText)
		c.numbers("members.groups", m.Groups, c.b.Groups)
		if !slices.Contains([]Source{FromSelf, FromPeer, FromCheckpoint, FromSeed}, m.State) {
			c.fault("members.state", "%.60q is no source of a state", m.State)
		}
	}
	c.number("donor", int64(r.Donor), -1, int64(world))
	if r.Checkpoint != "" && (len(r.Checkpoint) > maxWord || filepath.Base(r.Checkpoint) != r.Checkpoint) {
		c.fault("checkpoint", "%.60q is no name of a file", r.Checkpoint)
	}
	c.text("reason", r.Reason, maxError)
	if r.Last != nil {
		c.commit(r.Last, AnyJob()) // of other settings, where they were changed
	}
	c.count("holders", len(r.Holders), c.b.Shards)
	if c.b.known && r.Spread() && len(r.Holders) != c.b.Shards {
		c.fault("holders", "has %d entries of %d shards", len(r.Holders), c.b.Shards)
	}
	for _, ranks := range r.Holders {
		c.numbers("holders", ranks, world)
	}
	c.count("transfers", len(r.Transfers), config.MostShards)
	for _, t := range r.Transfers {
		c.number("transfers.shard", int64(t.Shard), 0, int64(c.b.Shards))
		c.number("transfers.from", int64(t.From), 0, int64(world))
		c.numbers("transfers.to", t.To, world)
		c.text("transfers.digest", t.Digest, maxWord)
	}
	c.numbers("trial", r.Trial, c.b.Groups)
	if n := len(r.Key); n != 0 && n != KeyLen {
		c.fault("key", "has %d bytes, want %d or none", n, KeyLen)
	}
}
