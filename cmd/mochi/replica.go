package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/cmd/mochi/run"
	"mochi/coordinator/gossip"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/model/engine"
	"mochi/replica"
	"mochi/replica/data"
)

func replicaCommand() *cli.Command {
	c := cli.NewCommand("replica", cli.Text{
		Short:   "join a cluster as a replica",
		About:   "join a cluster as a replica; the coordinator says what to train",
		Example: "mochi replica --join coordinator:4222 --data fashion-mnist --threads 2\nmochi replica --join a:4222,b:4222,c:4222 --data fashion-mnist",
	})
	c.Group("Cluster")
	join := addJoin(c, "")
	job := c.String("job", defaultJob, "`NAME` of the job")
	name := c.String("name", "", "`NAME` for people (default the host's)")
	advertise := c.String("advertise", "", "`HOST[:PORT]` that other replicas reach this one by (default: the address that faces the coordinator)")
	listen := c.String("listen", "", "`HOST:PORT` (TCP) where other replicas reach this one, behind a firewall or a translation of addresses (default: what is advertised, a free port)")
	gossipOn := c.String("gossip", "", "`HOST:PORT` (UDP and TCP) where members tell each other who is there (default: --listen's address, a free port)")
	wait := c.Duration("wait", time.Minute, "how long to wait for the coordinator at first")
	orphaned := c.Duration("orphaned", 30*time.Minute, "how long to go on without a connection to the coordinator before this replica ends with status 75; 0 = for ever")
	grace := c.Duration("grace", 25*time.Second, "how long SIGTERM may take: a step that takes longer is given up, and run again by the others; 0 = as long as it takes")
	verbose := c.Bool("verbose", false, "log more")
	c.Group("This machine")
	sources := cli.AddData(c, "`PATH` of the data set, the same as the other replicas'")
	cache := cli.AddCache(c, engines.BuildIdentity)
	classes := c.String("classes", "", cli.ClassesFlag+": the coordinator's --classes")
	var engineName string
	engines.AddFlag(c, &engineName, "")
	device := c.Int("device", 0, "GPU number, of engine cuda")
	tune := c.Bool("tune", false, engines.TuneHelp)
	threads := c.Int("threads", 0, "compute threads; 0 = all cores")
	workers := c.Int("workers", 0, workersFlag)
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		where := join.addresses(&f)
		access := join.access.source(&f, true)
		var bus *natsbus.Replica
		addresses := finder{
			listen: endpointFlag(&f, "listen", *listen, true), gossip: endpointFlag(&f, "gossip", *gossipOn, true),
			advertise: endpointFlag(&f, "advertise", *advertise, false),
			facing:    func() (string, error) { return natsring.AdvertiseHost(bus.RemoteAddr()) },
			lookup:    net.DefaultResolver.LookupHost, own: isOwn,
		}
		f.AtLeast(0, "threads", *threads)
		f.AtLeast(0, "workers", *workers)
		f.AtLeast(0, "device", *device)
		for name, d := range map[string]time.Duration{"orphaned": *orphaned, "grace": *grace, "wait": *wait} {
			if d < 0 {
				f.Add(name, "is %v, which is negative", d)
			}
		}
		// In which precision to compute, the coordinator will say.
		info := engines.Check(&f, engineName, engine.Config{Precision: engine.FP32, Threads: max(0, *threads), Device: *device, Tune: *tune})
		if c.Given("device") {
			engines.RefuseDevices(&f, info)
		}
		set := cli.OpenClasses(&f, *sources, *classes, errs, cache)
		if err := f.Err(); err != nil {
			return err
		}
		if *name == "" {
			*name, _ = os.Hostname()
		}
		log := run.NewLog(errs, *verbose)
		fmt.Fprintln(errs, set.Announce)
		train := data.NewLenient(set.Train, func(e *data.CorruptError) {
			log.Warn("image cannot be decoded, another takes its place", "path", e.Path, "cause", e.Err)
		})
		set.Train = train
		open := func(p engine.Precision) (engine.Engine, error) {
			eng, why, err := engines.Open(engineName, engine.Config{Precision: p, Threads: *threads, Device: *device, Tune: *tune})
			if err == nil {
				fmt.Fprintln(errs, why)
			}
			return eng, err
		}

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		id := access.Key.ID(*name)
		var err error
		bus, err = natsbus.ConnectReplica(ctx, natsbus.Options{Job: *job, ID: id, Addresses: where, Access: access, Wait: *wait, Log: log})
		if err != nil {
			return notLetIn(err)
		}
		defer bus.Close()
		known, err := knownTo(access, bus.RemoteAddr())
		if err != nil {
			return err
		}
		at, err := addresses.places(ctx)
		if err != nil {
			return err
		}
		node, err := natsring.NewNode(natsring.Options{
			Job: *job, ID: id, Listen: at.Ring.String(), Advertise: at.Told.Host, AdvertisePort: at.Told.Port, Log: log,
			Neighbours: known.neighbours,
		})
		if err != nil {
			return err
		}
		defer node.Close()
		hints := joinGossip(gossip.Config{Name: id, Bind: at.Gossip.Host, Port: at.Gossip.Port, Advertise: at.Hinted, Key: known.gossip, Label: *job, Log: log})
		defer hints.shutdown()

		r := replica.New(replica.Config{
			ID: id, Name: *name, Binary: engines.BuildIdentity(), BulkURL: node.URL(), Gossip: hints.addr(),
			Engine: open, Info: info, Data: set, Workers: *workers, Link: bus, Ring: openRings(node), Log: log, Wait: *wait, Orphaned: *orphaned,
			Joined: func(w protocol.Welcome) { hints.join(w.Gossip) },
		})
		stop, end := stopOnSignals(func(format string, args ...any) { fmt.Fprintf(errs, format+"\n", args...) },
			"leaving after this step; once more to stop at once", func(s os.Signal) {
				if s == syscall.SIGTERM { // whoever sends that does not wait for ever
					r.Leave(s.String(), *grace)
				} else {
					r.Leave(s.String(), 0)
				}
			})
		defer end()
		err = r.Run(ctx)
		if n := len(train.Corrupt()); n > 0 {
			log.Warn("images could not be decoded and were replaced", "count", n)
		}
		if err == nil && stop.interrupted() {
			return cli.ErrInterrupted
		}
		if errors.Is(err, replica.ErrRefused) {
			return cli.UsageError{Err: err}
		}
		return err
	}
	return c
}

// newID makes an id that is unique to this process and says whose it is.
func newID(name string) string {
	return identity.Word(name) + "-" + strings.ToLower(rand.Text()[:6])
}
