package main

import (
	"log/slog"

	"mochi/coordinator/gossip"
)

// gossiping is a replica's part in the gossip, or none: hints make a loss known
// earlier, and nothing depends on them.
type gossiping struct {
	member *gossip.Member // nil: it could not start
	log    *slog.Logger
}

// joinGossip starts to take part; where that fails it says so.
func joinGossip(cfg gossip.Config) gossiping {
	m, err := gossip.Start(cfg)
	if err != nil {
		cfg.Log.Warn("no gossip; losses are noticed by other means", "err", err)
		m = nil
	}
	return gossiping{m, cfg.Log}
}

// addr is what the others are told, "" without a part in it.
func (g gossiping) addr() string {
	if g.member == nil {
		return ""
	}
	return g.member.Addr()
}

func (g gossiping) join(addresses []string) {
	if g.member == nil {
		return
	}
	if err := g.member.Join(addresses); err != nil {
		g.log.Warn("gossip: no peer reached; losses are noticed by other means", "err", err)
	}
}

func (g gossiping) shutdown() {
	if g.member != nil {
		g.member.Shutdown()
	}
}
