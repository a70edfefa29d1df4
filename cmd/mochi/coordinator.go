package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"mochi/coordinator/protocol"
	natsbus "mochi/coordinator/protocol/nats"
	"mochi/replica/data"
)

func runCoordinator(args []string, out, errs io.Writer) error {
	fs := newFlags("coordinator", "run the coordinator of a cluster: it decides, keeps the run's files, and embeds the NATS server",
		"mochi coordinator --listen 0.0.0.0:4222 --state /srv/run --data fashion-mnist --preset demo --min-replicas 2", out)
	listen := fs.String("listen", "127.0.0.1:4222", "`HOST:PORT` where replicas join")
	state := fs.String("state", "", "`DIR` of the run: its files and the commit log")
	job := fs.String("job", defaultJob, "job `NAME`")
	dataPath := fs.String("data", "", "data set, to check the replicas' and for --knn-every; \"\" = what the first replica has")
	training := addTrainingFlags(fs)
	engineName := fs.String("engine", "auto", "`E` for --knn-every: auto, gorgonia, onednn, cuda")
	resume := fs.String("resume", "auto", "auto: go on from DIR; never: start afresh, what DIR holds is moved aside; `FILE`: start from this checkpoint")
	verbose := fs.Bool("verbose", false, "log more")
	if _, err := parse(fs, args, 0); err != nil {
		return err
	}
	cfg, err := training.config(fs)
	var faults protocol.Faults
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	if *state == "" {
		faults = append(faults, protocol.Fault{Field: "state", Problem: "missing: the folder of the run"})
	}
	var set *data.Set
	var info protocol.Data
	if *dataPath != "" {
		if set, err = data.Open(*dataPath); err != nil {
			faults = append(faults, protocol.Fault{Field: "data", Problem: err.Error()})
		} else {
			info = set.Info
			if cfg.Oracle && info.Classes == 0 {
				faults = append(faults, protocol.Fault{Field: "oracle", Problem: "needs labelled data; " + *dataPath + " has no classes"})
			}
		}
	}
	if len(faults) > 0 {
		return usageError{faults}
	}
	log := newLog(errs, *verbose)
	if set != nil {
		fmt.Fprintln(errs, set.Announce)
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintln(errs, "note:", w)
	}
	j, err := openJob(*state, cfg, *resume, errs)
	if err != nil {
		return err
	}
	defer j.dir.close()
	j.rec.know(info)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	stop := newStopper(signals, errs, cancel)
	defer stop.end()

	nats, err := natsbus.StartServer(natsbus.ServerOptions{Listen: *listen, StoreDir: j.commitLog(*state), Log: log})
	if err != nil {
		return err
	}
	defer nats.Shutdown()
	knn := newEvaluator(cfg, set, *engineName, j.rec)
	j.store.saved = knn.saved(ctx)
	srv, err := newServer(ctx, serverParts{job: j, name: *job, nats: nats, data: info, log: log, gossip: gossipAddress(*listen)})
	if err != nil {
		return err
	}
	stop.orderly(func() { srv.Stop("interrupted") })
	j.rec.progress.say("job %s: replicas join with  mochi replica --join %s --data …", *job, nats.URL())
	err = srv.Run(ctx)
	j.rec.progress.done()
	knn.wait()
	if stop.asked() {
		return orInterrupted(err, stop)
	}
	return err
}
