package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/cmd/mochi/run"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica/data"
)

func coordinatorCommand() *cli.Command {
	c := cli.NewCommand("coordinator", cli.Text{
		Short:   "run the coordinator of a cluster",
		About:   "run the coordinator of a cluster: it decides, keeps the run's files, and embeds the NATS server",
		Example: "mochi coordinator --listen 0.0.0.0:4222 --state /srv/run --data fashion-mnist --preset demo --min-replicas 2",
	})
	c.Group("Run")
	state := c.String("state", "", "`DIR` of the run: its files and the commit log")
	dataPath := c.String("data", "", "`PATH` of the data set, for --knn-every and to check the replicas'; without it the first replica's counts")
	c.Complete("data", data.FashionMNIST)
	var engineName, resume, logIs string
	run.AddResume(c, &resume)
	run.AddLog(c, &logIs)
	verbose := c.Bool("verbose", false, "log more")
	c.Group("Cluster")
	listen := c.String("listen", "127.0.0.1:4222", "`HOST:PORT` where replicas join")
	gossipOn := c.String("gossip", "", "`HOST:PORT`, UDP and TCP, where members tell each other who is there (default: --listen's address and a free port)")
	jobName := c.String("job", defaultJob, "`NAME` of the job")
	patience := addLimits(c, true)
	c.Group("This machine")
	engines.AddFlag(c, &engineName, ", for --knn-every")
	knnImages := c.Int("knn-images", 0, knnImagesFlag)
	training := cli.AddTraining(c, func(string) bool { return true })
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		cfg := training.Job(c, &f, func(*config.Job) {})
		if *state == "" {
			f.Add("state", "missing: the folder of the run")
		}
		checkListen(&f, *listen)
		hints := endpointFlag(&f, "gossip", *gossipOn, true)
		// It evaluates, in fp32; whether the job's precision can be had is a matter
		// of the replicas' processors, but of the build they share with it, too.
		if needs := engines.ConfigOf(cfg, 1, 0); len(engines.BuiltIn()) == 1 {
			engines.Check(&f, engineName, needs)
		} else {
			needs.Precision = engine.FP32
			engines.Check(&f, engineName, needs)
		}
		f.AtLeast(0, "knn-images", *knnImages)
		limits := patience.limits(&f)
		start := run.Resumed(&f, resume, cfg)
		rebuild := run.Rebuilds(&f, logIs)
		var set *data.Set
		var info protocol.Data
		if *dataPath != "" {
			set = cli.OpenData(&f, *dataPath, errs)
		}
		if set != nil {
			if info = set.Info; cfg.Oracle && info.Classes == 0 {
				f.Add("oracle", "needs labelled data; %s has no classes", *dataPath)
			}
		}
		if err := f.Err(); err != nil {
			return err
		}
		if err := portIsFree(*listen); err != nil {
			return err
		}
		p := run.NewProgress(errs, cfg)
		log := slog.New(run.PlainLog{Progress: p, Level: run.AtLevel(slog.LevelInfo, *verbose)})
		announce(p, set, cfg)
		j, err := run.Open(*state, cfg, resume, start, p)
		if err != nil {
			return err
		}
		defer j.Close()
		cfg = j.Config
		j.Recorder.Know(info)
		if set != nil {
			j.Recorder.Watch(set, cfg.StrictData)
		}

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stop, end := stopOnSignals(p.Say, finishing, func(os.Signal) { cancel() })
		defer end()

		nats, err := natsbus.StartServer(natsbus.ServerOptions{Listen: *listen, Log: log})
		if err != nil {
			return err
		}
		defer nats.Shutdown()
		knn := evaluate.New(evaluate.Options{
			Job: cfg, Set: set, Engine: engineName, Images: *knnImages, Say: p.Say, Event: j.Dir.Event,
		})
		j.Store.Saved = knn.Saved(ctx, j.From)
		srv, err := newServer(ctx, serverParts{job: j, name: *jobName, nats: nats, data: info, log: log, cpu: processTime, rebuild: rebuild, limits: limits, gossip: gossipEndpoint(hints, *listen)})
		if err != nil {
			return err
		}
		stop.orderly(func() { srv.Stop("interrupted") })
		p.Say("job %s: replicas join with  mochi replica --join %s --data …", *jobName, nats.URL())
		err = srv.Run(ctx)
		p.Done()
		knn.Wait()
		if err == nil && !stop.asked() {
			err = knn.Trained(ctx, j.Store.Dir)
		}
		return orInterrupted(err, stop)
	}
	return c
}

// checkListen checks the form of --listen.
func checkListen(f *cli.Faults, address string) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		f.Add("listen", "%q is not of the form HOST:PORT", address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		f.Add("listen", "port %q of %q is not a number from 0 to 65535", port, address)
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
