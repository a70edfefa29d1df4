package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sync/errgroup"

	ringnats "mochi/allreduce/nats"
	"mochi/coordinator/protocol"
	natsbus "mochi/coordinator/protocol/nats"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

func runTrain(args []string, out, errs io.Writer) error {
	fs := newFlags("train", "train on this machine: embedded NATS, coordinator and replicas in one process",
		"mochi train --preset demo --data fashion-mnist --replicas 2 --out runs/first\n"+
			"  mochi train --preset cifar10 --data ~/images --image-size 64 --out runs/mine", out)
	dataPath := fs.String("data", "", "`PATH` of the images, or fashion-mnist: DIR/train/<class>/* with val or test beside it, DIR/<class>/*, IDX pairs, CIFAR binary")
	runPath := fs.String("out", "", "`RUN` folder")
	replicas := fs.Int("replicas", 1, "local replicas")
	training := addTrainingFlags(fs)
	engineName := fs.String("engine", "auto", "`E`: auto, gorgonia, onednn, cuda")
	threads := fs.Int("threads", 0, "compute threads of each replica; 0 = the cores divided by the replicas")
	workers := fs.Int("workers", 1, "loader goroutines of each replica")
	resume := fs.String("resume", "auto", "auto: go on from RUN; never: start afresh, what RUN holds is moved aside; `FILE`: start from this checkpoint")
	verbose := fs.Bool("verbose", false, "log more")
	if _, err := parse(fs, args, 0); err != nil {
		return err
	}
	cfg, err := training.config(fs)
	var faults protocol.Faults
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	fault := func(field, format string, a ...any) {
		faults = append(faults, protocol.Fault{Field: field, Problem: fmt.Sprintf(format, a...)})
	}
	if *dataPath == "" {
		fault("data", "missing: a path or fashion-mnist")
	}
	if *runPath == "" {
		fault("out", "missing: the RUN folder to write")
	}
	switch {
	case *replicas < 1:
		fault("replicas", "is %d, must be at least 1", *replicas)
	case err == nil && *replicas > cfg.Groups():
		fault("replicas", "is %d, but the batch of %d has only %d groups of %d (--bn-group) to deal", *replicas, cfg.Batch, cfg.Groups(), cfg.BNGroup)
	}
	if *threads < 0 || *workers < 1 {
		fault("threads, workers", "must not be negative; at least one worker")
	}
	var set *data.Set
	if *dataPath != "" {
		if set, err = data.Open(*dataPath); err != nil {
			fault("data", "%v", err)
		} else if cfg.Oracle && set.Train.Classes() == 0 {
			fault("oracle", "needs labelled data; %s has no classes", *dataPath)
		}
	}
	if len(faults) > 0 {
		return usageError{faults}
	}
	cfg.MinReplicas, cfg.MaxReplicas = *replicas, 0
	if *threads == 0 {
		*threads = max(1, runtime.NumCPU()/(*replicas))
	}
	fmt.Fprintln(errs, set.Announce)
	for _, w := range cfg.Warnings() {
		fmt.Fprintln(errs, "note:", w)
	}
	log := newLog(errs, *verbose)
	if !*verbose {
		log = slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	return train(local{cfg: cfg, set: set, run: *runPath, replicas: *replicas, threads: *threads, workers: *workers,
		engine: *engineName, resume: *resume, log: log, errs: errs})
}

// local is one training process.
type local struct {
	cfg                        protocol.Config
	set                        *data.Set
	run                        string
	replicas, threads, workers int
	engine, resume             string
	log                        *slog.Logger
	errs                       io.Writer
}

func train(l local) error {
	j, err := openJob(l.run, l.cfg, l.resume, l.errs)
	if err != nil {
		return err
	}
	defer j.dir.close()
	j.rec.know(l.set.Info)
	total := totalSteps(l.cfg, j.rec.samples.Load())
	if j.from != nil && j.from.Step >= total {
		fmt.Fprintf(l.errs, "%s is complete: %d of %d steps; --steps or --epochs lets it go on\n", l.run, j.from.Step, total)
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	knn := newEvaluator(l.cfg, l.set, l.engine, j.rec)
	j.store.saved = knn.saved(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	stop := newStopper(signals, l.errs, cancel)
	defer stop.end()

	if j.from == nil {
		if err := knn.untrained(ctx); err != nil {
			return orInterrupted(err, stop)
		}
	}
	nats, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: j.commitLog(l.run), Log: l.log})
	if err != nil {
		return err
	}
	defer nats.Shutdown()
	srv, err := newServer(ctx, serverParts{job: j, name: defaultJob, nats: nats, data: l.set.Info, log: l.log})
	if err != nil {
		return err
	}
	stop.orderly(func() { srv.Stop("interrupted") })

	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.Run(gctx) })
	for i := range l.replicas {
		group.Go(func() error { return l.replica(gctx, nats, i) })
	}
	err = group.Wait()
	j.rec.progress.done()
	knn.wait()
	if err != nil || stop.asked() {
		return orInterrupted(err, stop)
	}
	st, err := checkpoint.Load(filepath.Join(j.store.dir, checkpoint.LatestName))
	if err != nil {
		return err
	}
	return knn.trained(ctx, st)
}

// replica runs one local replica.
func (l local) replica(ctx context.Context, nats *natsbus.Server, i int) error {
	name := fmt.Sprintf("local-%d", i)
	id := newID(name)
	eng, why, err := openEngine(l.engine, engineConfig(l.cfg, l.threads, i))
	if err != nil {
		return err
	}
	defer eng.Close()
	if i == 0 {
		fmt.Fprintf(l.errs, "%d replicas, each with %s\n", l.replicas, why)
	}
	bus, err := natsbus.ConnectReplica(ctx, natsbus.Options{Job: defaultJob, ID: id, Server: nats, Log: l.log})
	if err != nil {
		return err
	}
	defer bus.Close()
	node, err := ringnats.NewNode(ringnats.Options{Job: defaultJob, ID: id, HubServer: nats})
	if err != nil {
		return err
	}
	defer node.Close()
	err = replica.New(replica.Config{
		ID: id, Name: name, Binary: buildIdentity(), Engine: eng, Data: l.set, Workers: l.workers,
		Link: bus, Ring: openRings(node), Log: l.log,
	}).Run(ctx)
	if err != nil {
		return fmt.Errorf("replica %s: %w", name, err)
	}
	return nil
}

// orInterrupted is errInterrupted after an orderly stop, else err.
func orInterrupted(err error, stop *stopper) error {
	if stop.asked() && (err == nil || errors.Is(err, context.Canceled)) {
		return errInterrupted
	}
	return err
}
