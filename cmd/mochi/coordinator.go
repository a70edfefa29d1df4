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
	"mochi/coordinator"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/quorum"
	"mochi/model/engine"
	"mochi/replica/data"
)

func coordinatorCommand() *cli.Command {
	c := cli.NewCommand("coordinator", cli.Text{
		Short: "run the coordinator of a cluster",
		About: "run the coordinator of a cluster: it decides, keeps the run's files, and embeds the NATS server",
		Example: "mochi coordinator --listen 0.0.0.0:4222 --state /srv/run --data fashion-mnist --preset demo --min-replicas 2\n" +
			"mochi coordinator --standby a=host1:4222,b=host2:4222,c=host3:4222 --name a --keys keys --state /srv/run --data fashion-mnist --preset demo\n" +
			"mochi coordinator --nats nats://n1:4222,nats://n2:4222,nats://n3:4222 --nats-creds mochi.creds --name a --state /srv/run --data fashion-mnist --preset demo",
	})
	var k coordinating
	c.Group("Run")
	c.StringVar(&k.state, "state", "", "`DIR` of the run: its files and the commit log")
	sources := cli.AddData(c, "`PATH` of the data set, for --knn-every and to check the replicas'; without it the first replica's counts")
	cache := cli.AddCache(c, engines.BuildIdentity)
	run.AddBeginning(c, &k.from)
	var logIs string
	run.AddLog(c, &logIs)
	verbose := c.Bool("verbose", false, "log more")
	c.Group("Cluster")
	c.StringVar(&k.listen, "listen", "127.0.0.1:4222", "`HOST:PORT` where replicas join; with --standby, its own address there")
	gossipOn := c.String("gossip", "", "`HOST:PORT`, UDP and TCP, where members tell each other who is there (default: --listen's address and a free port)")
	c.StringVar(&k.name, "job", defaultJob, "`NAME` of the job")
	standby := c.String("standby", "", "`A=HOST:PORT,B=…,C=…`: the three or five coordinators of a group, this one among them; one leads, the others stand by, and replicas --join all of them. To each other they talk on the next port, or NAME=HOST:PORT/PORT")
	nats := c.String("nats", "", "`URL,URL,…` of a NATS cluster with JetStream (nats:// or tls://), which has the log, elects, and carries messages, in place of a server of this one's own; any number of coordinators with the same settings stand by for each other, and replicas --join it")
	creds := addCredentials(c)
	self := c.String("name", "", "`NAME` of this coordinator in --standby (default: the one that has --listen's address), or among those of --nats (default: the host's, and something random)")
	patience := addLimits(c, true)
	c.Group("Who may come")
	k.access.add(c)
	c.Group("This machine")
	engines.AddFlag(c, &k.engine, ", for --knn-every")
	c.IntVar(&k.knnImages, "knn-images", 0, knnImagesFlag)
	c.IntVar(&k.knnK, "knn-k", 0, knnKFlag)
	training := cli.AddTraining(c, func(string) bool { return true })
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		k.cfg = training.Job(c, &f, func(*config.Job) {})
		if done, err := training.Printed(out, k.cfg, &f); done {
			return err
		}
		if k.state == "" {
			f.Add("state", "missing: the folder of the run")
		} else {
			f.AddErr("state", private(k.state))
		}
		switch {
		case *nats != "":
			k.nats = natsOf(&f, *nats, *creds)
			k.self.Name = *self
			if k.self.Name == "" {
				host, _ := os.Hostname()
				k.self.Name = newID(host)
			}
			if !memberName.MatchString(k.self.Name) {
				f.Add("name", "%q: letters, digits, '-' and '_' only", *self)
			}
			if *standby != "" {
				f.Add("nats", "and --standby are two ways to have several coordinators: choose one")
			}
			if c.Given("listen") {
				f.Add("listen", "is where replicas join, and with --nats they join the NATS servers")
			}
			k.neverAfresh(&f)
		case *creds != "":
			f.Add("nats-creds", "is for the NATS cluster of --nats, which is missing")
		default:
			checkListen(&f, k.listen)
		}
		if *standby != "" && *nats == "" {
			k.members = membersOf(&f, *standby)
			k.self = selfOf(&f, k.members, *self, k.listen)
			k.listen, k.peers = listens(k.self, k.listen, c.Given("listen"))
			k.neverAfresh(&f)
		} else if *self != "" && *nats == "" {
			f.Add("name", "is a coordinator's in a group, and --standby or --nats is missing")
		}
		if *nats == "" {
			k.root = k.access.check(&f, k.state, k.members != nil)
		} else {
			k.access.notWithNATS(&f)
		}
		checkRingSecurity(&f, k.cfg, c.Given("ring-security"), *nats != "", k.access.insecure)
		hints := endpointFlag(&f, "gossip", *gossipOn, true)
		// It evaluates, in fp32; whether the job's precision can be had is a matter
		// of the replicas' processors, but of the build they share with it, too.
		if needs := engines.ConfigOf(k.cfg, 1, 0); len(engines.BuiltIn()) == 1 {
			engines.Check(&f, k.engine, needs)
		} else {
			needs.Precision = engine.FP32
			engines.Check(&f, k.engine, needs)
		}
		f.AtLeast(0, "knn-images", k.knnImages)
		f.AtLeast(0, "knn-k", k.knnK)
		k.limits = patience.limits(&f)
		if len(*sources) > 0 {
			k.set = cli.OpenClasses(&f, *sources, k.cfg.Classes, errs, cache)
		}
		if k.set != nil {
			k.info = k.set.Info
			checkOracle(&f, k.cfg, k.set)
		}
		cli.Learns(&f, &k.cfg, k.set, *sources)
		k.from.Check(&f, k.cfg, func(note string) { fmt.Fprintln(errs, note) })
		f.AddErr("resume", run.SameData(k.from.State, k.info))
		k.rebuild = run.Rebuilds(&f, logIs)
		if err := f.Err(); err != nil {
			return err
		}
		if k.nats != nil {
			k.gossip = hints // the rest follows from where NATS is
		} else if err := portIsFree(k.listen); err != nil {
			return err
		} else {
			k.gossip = gossipEndpoint(hints, k.listen)
		}
		k.progress = run.NewProgress(errs, k.cfg)
		k.log = slog.New(run.PlainLog{Progress: k.progress, Level: run.AtLevel(slog.LevelInfo, *verbose)})
		announce(k.progress, k.set, k.cfg)
		if k.members != nil || k.nats != nil {
			return standBy(&k)
		}
		return k.alone()
	}
	return c
}

// coordinating is what a coordinator was started with.
type coordinating struct {
	state, listen, engine string
	name                  string // of the job
	knnImages, knnK       int
	rebuild               bool // --log rebuild
	limits                coordinator.Limits
	gossip                endpoint
	cfg                   config.Job
	set                   *data.Set // nil: no --data
	info                  protocol.Data
	from                  run.Beginning
	progress              *run.Progress
	log                   *slog.Logger

	access guarding
	root   *identity.Root // nil: not made yet
	guard  *guard         // nil: everybody may come

	// Of one of a group; members and nats are nil where it is alone.
	members []quorum.Member
	self    quorum.Member // of those of --nats the name alone
	peers   string        // where it listens for the others
	nats    *natsPlace    // instead of them
}

// neverAfresh refuses --resume never, for one of a group.
func (k *coordinating) neverAfresh(f *cli.Faults) {
	if k.from.Resume == "never" {
		f.Add("resume", "never: a coordinator of a group does not throw away what the others count on; to start afresh, give all of them new folders, and with --nats another --job")
	}
}

// parts are those of its server; what differs is left to fill in.
func (k *coordinating) parts(j *run.Job, nats *natsbus.Server) serverParts {
	return serverParts{job: j, name: k.name, nats: nats, data: k.info, log: k.log, cpu: processTime, rebuild: k.rebuild, limits: k.limits, gossip: k.gossip, guard: k.guard, insecure: k.access.insecure}
}

// server are the options of the server that replicas join.
func (k *coordinating) server() natsbus.ServerOptions {
	return natsbus.ServerOptions{Listen: k.listen, Log: k.log, Authority: k.guard.authority(), Job: k.name}
}

// opened takes up what belongs to the run folder.
func (k *coordinating) opened(j *run.Job) *evaluate.Evaluator {
	k.cfg = j.Config
	j.Recorder.Know(k.info)
	if k.set != nil {
		k.set.Limit(k.cfg.ImagePixels(), k.cfg.ImageBytes())
		j.Recorder.Watch(k.set, k.cfg.StrictData)
	}
	return evaluate.New(evaluate.Options{
		Job: k.cfg, Set: k.set, Engine: k.engine, Images: k.knnImages, K: k.knnK, Say: k.progress.Say, Event: j.Events().Event,
	})
}

// alone runs the only coordinator of a job.
func (k *coordinating) alone() error {
	p := k.progress
	j, err := run.Open(k.state, k.cfg, k.from, p)
	if err != nil {
		return err
	}
	defer j.Close()
	knn := k.opened(j)
	if k.guard, err = k.access.open(k, k.root, p); err != nil {
		return err
	}
	defer k.guard.close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop, end := stopOnSignals(p.Say, finishing, func(os.Signal) { cancel() })
	defer end()

	nats, err := natsbus.StartServer(k.server())
	if err != nil {
		return err
	}
	defer nats.Shutdown()
	j.Store.Saved = knn.Saved(ctx, j.From)
	srv, err := newServer(ctx, k.parts(j, nats))
	if err != nil {
		return err
	}
	stop.orderly(func() { srv.Stop("interrupted") })
	p.Say("job %s: replicas join with  mochi replica --join %s", k.name, joinLine(k.listen, nats.URL(), net.InterfaceAddrs))
	err = srv.Run(ctx)
	p.Done()
	knn.Wait()
	if err == nil && !stop.asked() {
		err = knn.Trained(ctx, j.Store.Dir)
	}
	return orInterrupted(err, stop)
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
