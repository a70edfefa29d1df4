package coordinator

import (
	"fmt"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/model/figures"
)

// join starts a replica: a model of the real one, as the core sees it.
func (w *world) join() {
	w.born++
	m := &model{id: fmt.Sprintf("r%d", w.born), alive: true, connected: true}
	w.replicas = append(w.replicas, m)
	w.note("%s starts", m.id)
	m.hello()
}

func (m *model) send(msg protocol.Message) {
	msg.Version, msg.From = protocol.Version, m.id
	m.out = append(m.out, msg)
}

func (m *model) hello() {
	h := &protocol.Hello{ID: m.id, Name: m.id, Binary: "b", Data: protocol.Data{Kind: "idx", Train: 100}, Pending: m.pending}
	if m.known { // it has built what the job needs
		h.Config = "c"
	}
	if m.holds {
		h.State = &protocol.Position{Step: m.step, Digest: state(m.step), Shards: m.digests()}
		for v, bad := range m.bad {
			if bad { // it looks before it says what it holds
				h.State.Shards[v] = ""
			}
		}
	}
	m.send(protocol.Message{Hello: h})
}

func state(step int64) string     { return fmt.Sprintf("s%d", step) }
func gradients(step int64) string { return fmt.Sprintf("g%d", step) }

func (w *world) deliverUp(m *model) {
	if len(m.out) == 0 || !m.connected {
		return
	}
	msg := m.out[0]
	m.out = m.out[1:]
	if msg.Heartbeat == nil {
		w.note("from %s: %s", m.id, brief(msg))
	}
	w.step(Received{msg})
}

func brief(m protocol.Message) string {
	switch {
	case m.Hello != nil:
		return fmt.Sprintf("hello state=%+v pending=%+v", m.Hello.State, m.Hello.Pending)
	case m.Ready != nil:
		return fmt.Sprintf("ready %d round %d", m.Ready.Step, m.Ready.Round)
	case m.Applied != nil:
		return fmt.Sprintf("applied %d round %d", m.Applied.Step, m.Applied.Round)
	case m.Failed != nil:
		return fmt.Sprintf("failed %+v", *m.Failed)
	}
	return "leaving"
}

// deliverDown lets a replica handle one message, as package replica does.
func (w *world) deliverDown(m *model) {
	if len(m.in) == 0 {
		return
	}
	msg := m.in[0]
	m.in = m.in[1:]
	switch {
	case msg.Welcome != nil:
		if !m.known {
			m.known = true
			m.hello()
		}
	case msg.Again != nil:
		m.hello()
	case msg.Round != nil:
		w.enter(m, msg.Round)
	case msg.Commit != nil:
		w.commit(m, msg.Commit)
	case msg.Snapshot != nil:
		if m.holds && m.step == msg.Snapshot.Step && m.shards == everything {
			w.uploads = append(w.uploads, m.step)
		}
	case msg.Stop != nil:
		w.note("%s stops", m.id)
		m.alive, m.lostEvent = false, true
	}
}

func (w *world) enter(m *model, r *protocol.Round) {
	if !m.known {
		return // its Welcome was lost with a connection; the coordinator will hear of that
	}
	m.round, m.rank, m.next, m.pending = nil, -1, 0, nil
	for rank, member := range r.Members {
		if member.ID != m.id {
			continue
		}
		m.round, m.rank = r, rank
		switch member.State {
		case protocol.FromSeed:
			m.holds, m.step = true, 0
		case protocol.FromCheckpoint:
			if r.Checkpoint == "" {
				w.fatalf("no checkpoint named in %+v", r)
			}
			m.holds, m.step = true, r.Step-1
		case protocol.FromPeer:
			w.totals.peers++
			if r.Members[r.Donor].State != protocol.FromSelf {
				w.fatalf("the donor of %+v has no state", r)
			}
			m.holds, m.step = true, r.Step-1
		}
		if member.State != protocol.FromSelf {
			m.shards, m.bad = [worldShards]bool{}, [worldShards]bool{}
			if member.State != protocol.FromPeer {
				m.shards = everything
			} else if !r.Spread() {
				m.shards = everything
			}
		}
		m.fresh = true
		if !m.holds || m.step != r.Step-1 {
			// Only messages that crossed on a broken connection can mislead
			// the core so; the replica says so and is given a state.
			w.note("%s is to start step %d and holds %v %d", m.id, r.Step, m.holds, m.step)
			w.totals.misjudged++
			m.holds = false
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, NoState: true}})
			return
		}
		if !w.transfer(m, r) { // a sender is gone: the ring breaks
			m.holds = m.holds && member.State == protocol.FromSelf
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, NoState: !m.holds}})
			return
		}
		if r.Save {
			if w.totals.saves++; rank == 0 {
				w.save(m, r)
			}
			return
		}
		m.next = r.Step
	}
}

var everything = [worldShards]bool{true, true, true, true, true, true, true}

// transfer makes the copies for m, and says whether it has all it should.
func (w *world) transfer(m *model, r *protocol.Round) bool {
	for _, t := range r.Transfers {
		from := r.Members[t.From]
		if !slices.Contains(t.To, m.rank) {
			continue
		}
		for _, other := range w.replicas {
			if other.id == from.ID {
				if !other.alive || !other.holds || other.step != r.Step-1 {
					return false
				}
				if from.State != protocol.FromSelf || !other.shards[t.Shard] {
					w.fatalf("%s is to send shard %d and holds %v", other.id, t.Shard, other.shards)
				}
				if other.bad[t.Shard] { // it looks before it sends
					other.next = 0
					other.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Damaged: []int{t.Shard}}})
					return false
				}
				m.shards[t.Shard], m.bad[t.Shard] = true, false
				w.totals.sent++
				w.mended["flip "+m.id] = true // the core knows once the step is voted for
			}
		}
	}
	for v := range worldShards {
		if m.mustHold(v) && !m.shards[v] { // misled as above; the replica looks before it computes
			w.note("%s lacks shard %d and nobody is to send it", m.id, v)
			w.totals.misjudged++
			m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Damaged: []int{v}}})
			return false
		}
	}
	return true
}

func (m *model) mustHold(v int) bool {
	return !m.round.Spread() || slices.Contains(m.round.Holders[v], m.rank)
}

// save puts the checkpoint together from what the members hold, if none has
// gone on.
func (w *world) save(m *model, r *protocol.Round) {
	var have [worldShards]bool
	for _, other := range w.replicas {
		for _, member := range r.Members {
			if member.ID == other.id && other.alive && other.holds && other.step == r.Step-1 {
				for v := range have {
					have[v] = have[v] || other.shards[v]
				}
			}
		}
	}
	if have == everything {
		w.uploads = append(w.uploads, r.Step-1)
	} else {
		m.send(protocol.Message{Failed: &protocol.Failed{Round: r.Round, Step: r.Step, Unsaved: r.Step - 1}})
	}
}

// digests are those of the shards that m holds.
func (m *model) digests() []string {
	list := make([]string, worldShards)
	for v, has := range m.shards {
		switch {
		case has && m.bad[v]:
			list[v] = fmt.Sprintf("%s has another %d", m.id, v)
		case has:
			list[v] = fmt.Sprintf("v%d.%d", v, m.step)
		}
	}
	return list
}

func (w *world) compute(m *model) {
	if m.next == 0 || m.round == nil || m.hung {
		return
	}
	v := &protocol.Ready{Round: m.round.Round, Step: m.next, Digest: gradients(m.next), BusyMS: float64(1 + w.rng.IntN(50))}
	for _, g := range m.round.Members[m.rank].Groups {
		v.Groups = append(v.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: 1}})
	}
	m.pending = &protocol.Pending{Round: m.round.Round, Step: m.next, Digest: v.Digest}
	m.next = 0
	m.send(protocol.Message{Ready: v})
}

func (w *world) commit(m *model, c *protocol.Commit) {
	if m.pending == nil || m.pending.Step != c.Step {
		return
	}
	if m.step != c.Step-1 || m.pending.Digest != c.Digest {
		w.fatalf("%s at %d cannot apply %d", m.id, m.step, c.Step)
	}
	m.step, m.pending = c.Step, nil
	if m.fresh && m.round != nil && m.rank >= 0 {
		for v := range worldShards {
			m.shards[v] = m.shards[v] && m.mustHold(v)
		}
		m.fresh = false
	}
	a := &protocol.Applied{Round: c.Round, Step: c.Step, StateDigest: state(c.Step), Shards: m.digests()}
	for v := range worldShards {
		if m.shards[v] && m.bad[v] {
			a.Damaged = append(a.Damaged, v)
		}
	}
	m.send(protocol.Message{Applied: a})
	inRound := m.round != nil && c.Round == m.round.Round
	if c.Checkpoint && m.rank == 0 && inRound {
		oneIn := 8
		if w.rare && c.Final {
			oneIn = 2 // so that rounds without a step are no exception
		}
		if m.shards == everything || w.rng.IntN(oneIn) > 0 {
			w.uploads = append(w.uploads, c.Step)
		} else { // the ring broke while the shards were gathered
			m.send(protocol.Message{Failed: &protocol.Failed{Round: c.Round, Step: c.Step + 1, Unsaved: c.Step}})
			return
		}
	}
	if inRound && !c.EndRound {
		m.next = c.Step + 1
	}
}
