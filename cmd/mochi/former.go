package main

import (
	"context"
	"fmt"

	"mochi/coordinator/jetstream"
	"mochi/coordinator/natsbus"
)

// takeOver copies the commit log of an earlier build, which was JetStream's, to the
// job's own, once.
func takeOver(ctx context.Context, p serverParts) error {
	fail := func(err error) error {
		return fmt.Errorf("take over the commit log of an earlier build, %s: %w; if it cannot be read, move it away: the job goes on from its latest checkpoint then", p.job.Former, err)
	}
	nats, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: p.job.Former, Log: p.log})
	if err != nil {
		return fail(err)
	}
	defer nats.Shutdown()
	bus, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: p.name, Server: nats, Log: p.log})
	if err != nil {
		return fail(err)
	}
	defer bus.Close()
	old, err := jetstream.Open(ctx, bus.Conn(), p.name)
	if err != nil {
		return fail(err)
	}
	commits, err := old.After(ctx, 0)
	if err != nil {
		return fail(err)
	}
	round, err := old.Round(ctx)
	if err != nil {
		return fail(err)
	}
	data, err := old.Data(ctx)
	if err != nil {
		return fail(err)
	}
	chain := ""
	for i := range commits { // it had no running digest
		commits[i].Chain = commits[i].Link(chain)
		chain = commits[i].Chain
	}
	if err := p.job.Log.Adopt(ctx, commits); err != nil {
		return fail(err)
	}
	if err := p.job.Log.SaveRound(ctx, round); err != nil {
		return fail(err)
	}
	if err := p.job.Log.SaveData(ctx, data); err != nil {
		return fail(err)
	}
	p.log.Info("took over the commit log of an earlier build", "commits", len(commits))
	return p.job.TookOver()
}
