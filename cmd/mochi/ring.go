package main

import (
	"context"

	"mochi/allreduce"
	"mochi/allreduce/codec"
	"mochi/allreduce/natsring"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica"
)

// openRings connects a replica's node to the members of each round.
func openRings(node *natsring.Node) replica.OpenRing {
	return func(ctx context.Context, round protocol.Round, rank int, job config.Job) (replica.Ring, error) {
		var peers []natsring.Peer
		for _, m := range round.Members {
			peers = append(peers, natsring.Peer{ID: m.ID, URL: m.BulkURL})
		}
		lane := natsring.Lane(job.Lane())
		var transport allreduce.Transport
		var err error
		if job.Security() == config.SecurityPlain {
			transport, err = node.PlainRing(ctx, round.Round, rank, peers, lane, round.Key)
		} else {
			transport, err = node.Ring(ctx, round.Round, rank, peers, lane)
		}
		if err != nil {
			return nil, err
		}
		cfg := allreduce.DefaultConfig()
		cfg.Wire = codec.Wire(job.Wire)
		group, err := allreduce.NewGroup(transport, cfg)
		if err != nil {
			return nil, err
		}
		if err := group.Connect(ctx); err != nil {
			group.Close()
			return nil, err
		}
		return group, nil
	}
}
