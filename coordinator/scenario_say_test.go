package coordinator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/audit"
)

// What the members of a scenario say beside the digest of a step.

// recounts are the results that a member has of the groups that are computed
// twice: right ones, but for the groups of wrong=0,2, for which it has its own
// (own=x: that). It says nothing of those of silent=1,3.
func (s *scenario) recounts(id string) (list []protocol.Recount, keys string) {
	m, r := s.core.roster.Get(id), s.core.course.Round()
	if m == nil || r == nil || m.Rank() < 0 || m.Rank() >= r.World() {
		return nil, ""
	}
	deal := s.core.audits.Deal(r.Step(), announced(r))
	if trial := r.Plan().Trial; len(trial) > 0 {
		deal = audit.Trial(trial, r.World())
	}
	for _, g := range slices.Concat(deal.Own[m.Rank()], deal.Again[m.Rank()]) {
		among := func(key string) bool {
			return slices.Contains(strings.Split(s.str(key, ""), ","), strconv.Itoa(g))
		}
		digest := fmt.Sprintf("r%d", g)
		if among("wrong") {
			digest = s.str("own", "of-"+id)
			if digest == "infinite" {
				digest = protocol.NotFinite
			}
		}
		if among("wavers") { // another each time it computes it
			digest += fmt.Sprintf("-%d", len(list))
		}
		if !among("silent") {
			list = append(list, protocol.Recount{Group: g, Key: fmt.Sprintf("k%d", g), Query: digest})
		}
	}
	return list, s.str("keys", "keys")
}

// infinite reports that the step came to no number.
func (s *scenario) infinite(id string) {
	round, step := s.current()
	f := protocol.Failed{Round: s.num("round", round), Step: s.num("step", step), Fatal: true, NotFinite: true, Keys: "keys", Error: "training diverged"}
	for g := range strings.SplitSeq(s.str("groups", ""), ",") {
		if g != "" {
			r := protocol.Recount{Group: must(strconv.Atoi(g)), Query: protocol.NotFinite}
			if s.num("key", 0) > 0 {
				r.Key, r.Query, f.Keys = protocol.NotFinite, "", ""
			}
			f.Recounts = append(f.Recounts, r)
		}
	}
	s.from(id, protocol.Message{Failed: &f})
}

// shards are the digests of what a member holds in its round.
func (s *scenario) shards(id string, step int64) []string {
	list := make([]string, s.cfg.Training.QueueShards)
	if r := s.core.course.Round(); r != nil {
		for v, ranks := range r.Plan().Copies.Holders {
			for _, rank := range ranks {
				if r.Plan().Members[rank].ID() == id {
					list[v] = fmt.Sprintf("v%d.%d", v, step)
				}
			}
		}
	}
	return list
}
