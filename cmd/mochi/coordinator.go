package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica/data"
)

func runCoordinator(args []string, out, errs io.Writer) error {
	fs := newFlags("coordinator", "run the coordinator of a cluster: it decides, keeps the run's files, and embeds the NATS server",
		"mochi coordinator --listen 0.0.0.0:4222 --state /srv/run --data fashion-mnist --preset demo --min-replicas 2", out)
	listen := fs.String("listen", "127.0.0.1:4222", "`HOST:PORT` where replicas join")
	state := fs.String("state", "", "`DIR` of the run: its files and the commit log")
	jobName := fs.String("job", defaultJob, "`NAME` of the job")
	dataPath := fs.String("data", "", "`PATH` of the data set, for --knn-every and to check the replicas'; without it the first replica's counts")
	engineName := fs.String("engine", "auto", engineFlag+", for --knn-every")
	knnImages := fs.Int("knn-images", 0, knnImagesFlag)
	resume := fs.String("resume", "auto", resumeFlag)
	verbose := fs.Bool("verbose", false, "log more")
	training := addTrainingFlags(fs, func(string) bool { return true })
	if _, err := fs.parse(args); err != nil {
		return err
	}
	var f faults
	cfg := training.config(fs, &f, func(*config.Job) {})
	if *state == "" {
		f.add("state", "missing: the folder of the run")
	}
	checkListen(&f, *listen)
	// It evaluates, in fp32; whether the job's precision can be had is a matter
	// of the replicas' processors, but of the build they share with it, too.
	if needs := engineConfig(cfg, 1, 0); len(builtIn()) == 1 {
		checkEngine(&f, *engineName, needs)
	} else {
		needs.Precision = engine.FP32
		checkEngine(&f, *engineName, needs)
	}
	f.atLeast(0, "knn-images", *knnImages)
	start := resumed(&f, *resume, cfg)
	var set *data.Set
	var info protocol.Data
	if *dataPath != "" {
		set = openData(&f, *dataPath, errs)
	}
	if set != nil {
		if info = set.Info; cfg.Oracle && info.Classes == 0 {
			f.add("oracle", "needs labelled data; %s has no classes", *dataPath)
		}
	}
	if err := f.err(); err != nil {
		return err
	}
	if err := portIsFree(*listen); err != nil {
		return err
	}
	p := newProgress(errs, cfg)
	log := slog.New(plainLog{progress: p, level: atLevel(slog.LevelInfo, *verbose)})
	announce(p, set, cfg)
	j, err := openJob(*state, cfg, *resume, start, p)
	if err != nil {
		return err
	}
	defer j.close()
	j.rec.know(info)
	if set != nil {
		j.rec.watch(set, cfg.StrictData)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	stop := newStopper(signals, p.say, cancel)
	defer stop.end()

	nats, err := natsbus.StartServer(natsbus.ServerOptions{Listen: *listen, StoreDir: j.commitLog(*state), Log: log})
	if err != nil {
		return err
	}
	defer nats.Shutdown()
	knn := newEvaluator(evaluatorOptions{
		cfg: cfg, set: set, engine: *engineName, images: *knnImages, say: p.say, event: j.dir.event,
	})
	j.store.saved = knn.saved(ctx, j.from)
	srv, err := newServer(ctx, serverParts{job: j, name: *jobName, nats: nats, data: info, log: log, gossip: gossipAddress(*listen)})
	if err != nil {
		return err
	}
	stop.orderly(func() { srv.Stop("interrupted") })
	p.say("job %s: replicas join with  mochi replica --join %s --data …", *jobName, nats.URL())
	err = srv.Run(ctx)
	p.done()
	knn.wait()
	if err == nil && !stop.asked() {
		err = knn.trained(ctx, j.store.dir)
	}
	return orInterrupted(err, stop)
}

// checkListen checks the form of --listen.
func checkListen(f *faults, address string) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		f.add("listen", "%q is not of the form HOST:PORT", address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		f.add("listen", "port %q of %q is not a number from 0 to 65535", port, address)
	}
}

// portIsFree tries to listen, before anything is written: the NATS server
// needs the run's folder to start.
func portIsFree(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w; stop what is using the port or choose another with --listen", err)
	}
	return l.Close()
}
