package bench

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"mochi/allreduce/natsring"
	"mochi/allreduce/natsserver"
)

const job = "bench"

// inOneProcess runs all ranks here.
func inOneProcess(ctx context.Context, o Options) ([]samples, error) {
	var hub *natsserver.Server
	if o.Transport == Inproc {
		var err error
		if hub, err = natsring.StartServer("127.0.0.1:0"); err != nil {
			return nil, err
		}
		defer hub.Shutdown()
	}
	var process *natsring.Process
	if o.Lane != natsring.NATS {
		process = &natsring.Process{}
	}
	nodes := make([]*natsring.Node, o.World)
	peers := make([]natsring.Peer, o.World)
	raws := make([]*rawRing, o.World)
	for rank := range o.World {
		opts := natsring.Options{Job: job, ID: fmt.Sprintf("rank-%d", rank), Process: process}
		if hub != nil {
			opts.HubServer = hub
		} else {
			opts.Listen = o.listen()
		}
		node, err := natsring.NewNode(opts)
		if err != nil {
			return nil, err
		}
		defer node.Close()
		raw, err := newRawRing(o.World, o.listen())
		if err != nil {
			return nil, err
		}
		defer raw.close()
		nodes[rank], peers[rank], raws[rank] = node, natsring.Peer{ID: opts.ID, URL: node.URL()}, raw
	}
	all := make([]samples, o.World)
	ranks, ctx := errgroup.WithContext(ctx)
	for rank := range o.World {
		ranks.Go(func() (err error) {
			if err := raws[rank].connect(ctx, raws[(rank+1)%o.World].address()); err != nil {
				return err
			}
			t, err := nodes[rank].Ring(ctx, 1, rank, peers, o.Lane)
			if err != nil {
				return err
			}
			all[rank], err = onTransport(ctx, t, raws[rank], o)
			return err
		})
	}
	return all, ranks.Wait()
}
