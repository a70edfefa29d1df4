package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/evaluate"
	"mochi/cmd/mochi/run"
	"mochi/coordinator"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
)

func trainCommand() *cli.Command {
	c := cli.NewCommand("train", cli.Text{
		Short: "train on this machine: coordinator, NATS and N replicas in one process",
		About: "train on this machine: embedded NATS, coordinator and replicas in one process",
		Example: "mochi train --preset demo --data fashion-mnist --replicas 2 --out runs/first\n" +
			"mochi train --preset cifar10 --data ~/images --image-size 64 --out runs/mine",
	})
	var l local
	c.Group("Run")
	l.data = cli.AddData(c, "`PATH` of the images, or fashion-mnist: DIR/train/<class>/* with val or test beside it, DIR/<class>/*, IDX pairs, CIFAR binary, tar shards 'PREFIX-{000..009}.tar', a list LIST.csv of path,label")
	l.cache = cli.AddCache(c, engines.BuildIdentity)
	c.StringVar(&l.run, "out", "", "`RUN` folder to write")
	run.AddBeginning(c, &l.begin)
	run.AddLog(c, &l.logIs)
	verbose := c.Bool("verbose", false, "log more")
	patience := addLimits(c, false)
	c.Group("This machine")
	c.IntVar(&l.replicas, "replicas", 1, "local replicas; of engine cuda, one on each of GPU 0 to n−1")
	engines.AddFlag(c, &l.engine, "")
	c.Var(&l.devices, "device", "`LIST` of GPU numbers instead, one for each replica, such as 2 or 0,1; the same number twice: they share it")
	c.BoolVar(&l.tune, "tune", false, engines.TuneHelp)
	c.IntVar(&l.threads, "threads", 0, "compute threads of each replica; 0 = the cores divided by the replicas")
	c.IntVar(&l.workers, "workers", 0, workersFlag)
	c.IntVar(&l.knnImages, "knn-images", 0, knnImagesFlag)
	c.IntVar(&l.knnK, "knn-k", 0, knnKFlag)
	// All replicas are there from the start, so there is nothing to wait for.
	training := cli.AddTraining(c, func(name string) bool { return name != "min-replicas" && name != "max-replicas" })
	c.Run = func(args []string, out, errs io.Writer) error {
		l.errs = errs
		var f cli.Faults
		l.cfg = training.Job(c, &f, func(c *config.Job) { c.MinReplicas, c.MaxReplicas = 1, 0 })
		if done, err := training.Printed(out, l.cfg, &f); done {
			return err
		}
		if n := len(l.devices); n > 0 && !c.Given("replicas") {
			l.replicas = n
		}
		l.check(&f)
		l.limits = patience.limits(&f)
		if err := f.Err(); err != nil {
			return err
		}
		l.cfg.MinReplicas = l.replicas
		if l.workers == 0 {
			l.workers = max(1, runtime.NumCPU()/l.replicas)
		}
		l.progress = run.NewProgress(errs, l.cfg)
		l.log = slog.New(run.PlainLog{Progress: l.progress, Level: run.AtLevel(slog.LevelInfo, *verbose)})
		l.replicaLog = slog.New(run.PlainLog{Progress: l.progress, Level: run.AtLevel(slog.LevelWarn, *verbose)})
		announce(l.progress, l.set, l.cfg)
		if text := crowded(l.replicas, runtime.NumCPU()); text != "" && l.infos[0].Name != "cuda" {
			l.progress.Say("note: %s", text)
		}
		return l.train()
	}
	return c
}

// workersFlag is what --workers says in help.
const workersFlag = "loader threads of each replica at most; 0 = one a core. No more of them load than keep the engine from waiting"

// knnImagesFlag is what --knn-images says in help.
const knnImagesFlag = "training images that vote in the kNN of --knn-every at most, evenly spaced; 0 = all"

// knnKFlag is what --knn-k says in help.
const knnKFlag = "neighbours that vote in the kNN of --knn-every; 0 = 200, but no more than the smallest class has (at least 5)"

// local is one training process.
type local struct {
	errs                       io.Writer
	data                       *cli.Sources
	cache                      *cli.Cache
	run, engine                string
	begin                      run.Beginning
	logIs                      string // --log
	rebuild                    bool
	replicas, threads, workers int
	knnImages, knnK            int
	limits                     coordinator.Limits
	cfg                        config.Job

	process         natsring.Process // its replicas read each other's gradients in place
	tune            bool
	devices         engines.Devices // of the replicas, empty: 0, 1, …
	infos           []engine.Info   // of the replicas' engines
	set             *data.Set
	progress        *run.Progress
	log, replicaLog *slog.Logger
}

// check completes l and adds what is wrong with it to f.
func (l *local) check(f *cli.Faults) {
	if l.run == "" {
		f.Add("out", "missing: the RUN folder to write")
	}
	before := len(f.List)
	f.AtLeast(1, "replicas", l.replicas)
	if l.cfg.BNGroup > 0 && l.replicas > max(1, l.cfg.Units()) {
		has := fmt.Sprintf("%s of %d (--bn-group)", cli.Count(l.cfg.Groups(), "group"), l.cfg.BNGroup)
		if l.cfg.GroupsAtOnce > 1 {
			has = fmt.Sprintf("%s of %d groups (--groups-at-once) of %d (--bn-group)", cli.Count(l.cfg.Units(), "unit"), l.cfg.GroupsAtOnce, l.cfg.BNGroup)
		}
		f.Add("replicas", "is %d, but a batch of %d has only %s to deal", l.replicas, l.cfg.Batch, has)
	}
	f.AtLeast(0, "threads", l.threads)
	if l.threads == 0 {
		l.threads = max(1, runtime.NumCPU()/max(1, l.replicas))
	}
	f.AtLeast(0, "workers", l.workers)
	f.AtLeast(0, "knn-images", l.knnImages)
	f.AtLeast(0, "knn-k", l.knnK)
	many, on := l.replicas, l.devices
	if l.cfg.BNGroup < 1 || len(f.List) > before { // of a number that cannot be, one is enough to be checked
		many, on = 1, nil
	}
	cfg := engines.ConfigOf(l.cfg, max(1, l.threads), 0)
	cfg.Tune = l.tune
	l.infos = engines.CheckAll(f, l.engine, cfg, many, on)
	if l.set = cli.OpenClasses(f, *l.data, l.cfg.Classes, l.errs, l.cache); l.set != nil {
		checkOracle(f, l.cfg, l.set)
	}
	cli.Learns(f, &l.cfg, l.set, *l.data)
	l.begin.Check(f, l.cfg, func(note string) { fmt.Fprintln(l.errs, note) })
	if l.set != nil {
		f.AddErr("resume", run.SameData(l.begin.State, l.set.Info))
	}
	l.rebuild = run.Rebuilds(f, l.logIs)
}

// checkOracle says what --oracle lacks.
func checkOracle(f *cli.Faults, cfg config.Job, set *data.Set) {
	if why := set.NoOracle(); cfg.Oracle && why != "" {
		f.Add("oracle", "needs labelled data of two classes or more: %s", why)
	}
}

// announce says what is about to be trained on, and what may surprise.
func announce(p *run.Progress, set *data.Set, cfg config.Job) {
	if set != nil {
		p.Say("%s", set.Announce)
	}
	for _, w := range cfg.Warnings() {
		p.Say("note: %s", w)
	}
	if set != nil {
		if text := cfg.TooLargeFor(set.Info.Train); text != "" {
			p.Say("note: %s", text)
		}
	}
	why := "no data set here (--data)"
	if set != nil {
		why = set.NoKNN()
	}
	if why != "" && cfg.KNNEvery > 0 {
		what := "kNN accuracy"
		if cfg.Supervised {
			what = "accuracy"
		}
		p.Say("note: %s is not measured: %s", what, why)
	}
}

// crowded says that replicas that compute on so many cores are too many; "" where they
// are not.
func crowded(replicas, cores int) string {
	if replicas <= cores {
		return ""
	}
	return fmt.Sprintf("%d replicas share %s and take turns, which is slower than fewer of them: --replicas %d would do", replicas, cli.Count(cores, "core"), cores)
}

func (l *local) train() error {
	if l.cfg.StrictData {
		if err := l.set.Strict(); err != nil {
			return err
		}
	}
	l.begin.Over = func(st *checkpoint.State) bool { return run.Over(l.cfg, l.set.Info.Train, st) }
	j, err := run.Open(l.run, l.cfg, l.begin, l.progress)
	if err != nil {
		return err
	}
	defer j.Close()
	if err := run.SameData(j.From, l.set.Info); err != nil {
		return cli.UsageError{Err: err}
	}
	if j.Over {
		l.progress.Say("%s is complete: %d steps are done; --steps or --epochs lets it go on", l.run, j.From.Step)
		return nil
	}
	l.cfg = j.Config
	l.set.Limit(l.cfg.ImagePixels(), l.cfg.ImageBytes())
	j.Recorder.Know(l.set.Info)
	corrupt := j.Recorder.Watch(l.set, l.cfg.StrictData)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	knn := evaluate.New(evaluate.Options{
		Job: l.cfg, Set: l.set, Engine: l.engine, Device: l.devices.Of(0), Images: l.knnImages, K: l.knnK, Say: l.progress.Say, Event: j.Dir.Event,
	})
	j.Store.Saved = knn.Saved(ctx, j.From)
	stop, end := stopOnSignals(l.progress.Say, finishing, func(os.Signal) { cancel() })
	defer end()

	if j.From == nil {
		if err := knn.Untrained(ctx); err != nil {
			return orInterrupted(err, stop)
		}
	}
	nats, err := natsbus.StartServer(natsbus.ServerOptions{Log: l.log})
	if err != nil {
		return err
	}
	defer nats.Shutdown()
	srv, err := newServer(ctx, serverParts{job: j, name: defaultJob, nats: nats, data: l.set.Info, log: l.log, rebuild: l.rebuild, limits: l.limits})
	if err != nil {
		return err
	}
	if !l.rebuild {
		if err := j.Whole(); err != nil {
			return err
		}
	}
	stop.orderly(func() { srv.Stop("interrupted") })

	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.Run(gctx) })
	var left atomic.Int64
	left.Store(int64(l.replicas))
	for i := range l.replicas {
		group.Go(func() error {
			select {
			case <-srv.serving:
				err := l.replica(gctx, nats, i)
				if last := left.Add(-1) == 0; err != nil && !last && gctx.Err() == nil && !errors.Is(err, replica.ErrJobFailed) {
					l.progress.Say("%v; the others go on", err)
					return nil
				}
				return err
			case <-gctx.Done():
				return nil // srv says why
			}
		})
	}
	err = group.Wait()
	l.progress.Done()
	knn.Wait()
	if n := len(corrupt()); n > 0 && !l.cfg.StrictData { // then an error has said it
		l.progress.Say("%s could not be decoded; log.jsonl names them", cli.Count(n, "image"))
	}
	if err != nil || stop.asked() {
		return orInterrupted(err, stop)
	}
	if err := knn.Trained(ctx, j.Store.Dir); err != nil {
		return orInterrupted(err, stop)
	}
	l.progress.Say("the trained encoder is in %s", filepath.Join(j.Store.Dir, checkpoint.LatestName))
	return nil
}

// replica runs one local replica.
func (l *local) replica(ctx context.Context, nats *natsbus.Server, i int) error {
	name := fmt.Sprintf("local-%d", i)
	id := newID(name)
	open := func(p engine.Precision) (engine.Engine, error) {
		eng, why, err := engines.Open(l.engine, engine.Config{Precision: p, Threads: l.threads, Device: l.devices.Of(i), Tune: l.tune})
		if err == nil && i == 0 {
			l.progress.Say("%s with %s", cli.Count(l.replicas, "replica"), why)
		}
		return eng, err
	}
	bus, err := natsbus.ConnectReplica(ctx, natsbus.Options{Job: defaultJob, ID: id, Server: nats, Log: l.replicaLog})
	if err != nil {
		return err
	}
	defer bus.Close()
	node, err := natsring.NewNode(natsring.Options{Job: defaultJob, ID: id, HubServer: nats, Process: &l.process})
	if err != nil {
		return err
	}
	defer node.Close()
	err = replica.New(replica.Config{
		ID: id, Name: name, Binary: engines.BuildIdentity(), Engine: open, Info: l.infos[i], Data: l.set, Workers: l.workers,
		Link: bus, Ring: openRings(node), Log: l.replicaLog,
	}).Run(ctx)
	if err != nil {
		return fmt.Errorf("replica %s: %w", name, err)
	}
	return nil
}

// orInterrupted is errInterrupted after an orderly stop, else err.
func orInterrupted(err error, stop *stopper) error {
	if stop.asked() && (err == nil || errors.Is(err, context.Canceled)) {
		return cli.ErrInterrupted
	}
	return err
}
