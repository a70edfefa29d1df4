package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/evaluate"
	"mochi/cmd/mochi/run"
	"mochi/coordinator"
	"mochi/coordinator/follow"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// group is one coordinator of several, of which one leads. The log of the group
// (package quorum, or jetstream) says which; it runs the job as a single coordinator
// would, with that log in place of its own. The others stand by: they keep the run's files, and fetch
// each checkpoint. The process goes from the one to the other and back.
type group struct {
	*coordinating
	job  *run.Job
	node groupLog
	knn  *evaluate.Evaluator
	stop *stopper

	heard *standbys      // what the one that leads hears of the others
	late  sync.WaitGroup // of attempts to connect that nobody waits for any more

	signals chan os.Signal // capacity 1: the first that asked this process to end

	mu       sync.Mutex
	newest   follow.Checkpoint // of the group
	over     *follow.Outcome   // the job has ended, and has not gone on since
	overAt   time.Time
	followed bool          // another coordinator has led while this process was there
	ended    chan struct{} // closed when this process is to end
	result   error         // with which
}

// groupLog is the log of a group of coordinators, as one of them sees it.
type groupLog interface {
	// Lead waits until this one leads.
	Lead(ctx context.Context) (leadership, error)
	// Other is the one that leads, as far as is known, if it is not this one.
	Other() (name string, known bool)
	// Link connects to it as one that stands by; Serve connects this one, which leads, to
	// its replicas, with the server that they join, or nil where that is not its own.
	Link(ctx context.Context, to string) (*natsbus.Replica, error)
	Serve(ctx context.Context) (*natsbus.Coordinator, *natsbus.Server, error)
	// Logged is the configuration of the job, "" when it has not begun, and the last step.
	Logged() (config string, step int64)
	// Strangers answers who would join here while this one stands by, until ctx ends.
	Strangers(ctx context.Context)
	// Missing are the others that have not said what they hold; Behind says whether one
	// that is here has not read all that this one has.
	Missing() []string
	Behind() bool
	State() *protocol.GroupState
	Close() error
}

// leadership is the log of the group for as long as this coordinator leads.
type leadership interface {
	coordinator.Log
	Done() <-chan struct{}
	Line(file string, text []byte)
	Stored(c follow.Checkpoint)
	SaveConfig(ctx context.Context, text string) error
	Flush(ctx context.Context) error
	Copied(ctx context.Context, step int64) error
	Over(ctx context.Context, o follow.Outcome) error
	Resign(ctx context.Context) error
}

// standBy runs a coordinator of a group until the job is over, or it is told to go.
func standBy(k *coordinating) error {
	j, err := run.OpenMember(k.state, k.cfg, k.from.State, k.progress)
	if err != nil {
		return err
	}
	defer j.Close()
	g := &group{coordinating: k, job: j, heard: newStandbys(), signals: make(chan os.Signal, 1), ended: make(chan struct{})}
	g.knn = k.opened(j)
	if k.nats == nil { // else NATS says who may come
		if k.guard, err = k.access.open(k, k.root, k.progress); err != nil {
			return err
		}
		defer k.guard.close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if k.nats != nil {
		g.node, err = g.overNATS(ctx)
	} else {
		g.node, err = g.amongPeers()
	}
	if err != nil {
		return err
	}
	defer g.node.Close()
	stop, end := stopOnSignals(k.progress.Say, "leaving; once more stops at once", func(s os.Signal) { g.signals <- s })
	defer end()
	g.stop = stop
	defer g.late.Wait()
	defer cancel()
	return g.run(ctx)
}

// run stands by and leads in turn.
func (g *group) run(ctx context.Context) error {
	for {
		l, err := g.follow(ctx)
		if err != nil || l == nil {
			return err
		}
		over, err := g.lead(ctx, l)
		g.job.Outlet.Lead(nil)
		g.progress.Done()
		if over {
			return err
		}
	}
}

// end lets the process end; the first result counts.
func (g *group) end(result error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.ended:
	default:
		g.result = result
		close(g.ended)
	}
}

// follow stands by until this coordinator leads. Without a leadership and an error, the
// process has done what it was to do.
func (g *group) follow(ctx context.Context) (leadership, error) {
	if g.stop.asked() && len(g.signals) == 0 { // it was told while it led, and was deposed before it could obey
		return nil, g.leave()
	}
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() { g.node.Strangers(ctx) })
	owned.Go(func() { g.link(ctx) })
	type led struct {
		l   leadership
		err error
	}
	leads := make(chan led, 1)
	owned.Go(func() {
		l, err := g.node.Lead(ctx)
		leads <- led{l, err}
	})
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-g.ended:
			return nil, g.result
		case <-g.signals:
			return nil, g.leave()
		case now := <-leads:
			return now.l, now.err
		case <-look.C:
			if o, over := g.isOver(); over {
				g.progress.Say("the job is over: %s", o.Reason)
				return nil, outcome(o)
			}
		}
	}
}

// leave is how one that stands by ends when it is told to.
func (g *group) leave() error {
	g.progress.Say("%s stood by; the group goes on without it", g.self.Name)
	if g.stop.interrupted() {
		return cli.ErrInterrupted
	}
	return nil
}

// isOver says whether the job has ended. A coordinator that was started after that, and
// has not met anybody who leads since, does not count it: started again, a job goes on.
// Who lacks the last checkpoint waits for it, a while.
func (g *group) isOver() (follow.Outcome, bool) {
	_, lacks := g.wanted()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over == nil || !g.followed {
		return follow.Outcome{}, false
	}
	since := time.Since(g.overAt)
	return *g.over, since >= overAfter && (!lacks || since >= overWithin)
}

// outcome is the error with which a process ends as the job did.
func outcome(o follow.Outcome) error {
	switch o.Status {
	case 0:
		return nil
	case 130:
		return cli.ErrInterrupted
	}
	return errors.New(o.Reason)
}

// overAfter is how long nothing must follow the end of a job for it to be the end: a
// group that is started again reads in its log that it had ended, and then the line of
// whoever leads.
const overAfter = time.Second

// Held implements follow.Follower.
func (g *group) Held(file string) (int64, error) { return g.job.Copies.Held(file) }

// Line implements follow.Follower. Each leader begins with a line.
func (g *group) Line(file string, n int64, line []byte) error {
	g.mu.Lock()
	g.over = nil
	g.mu.Unlock()
	return g.job.Copies.Line(file, n, line)
}

// Sync implements follow.Follower.
func (g *group) Sync() error { return g.job.Copies.Sync() }

// Read implements follow.Follower.
func (g *group) Read(file string, n int64, bytes int) ([][]byte, error) {
	return g.job.Copies.Read(file, n, bytes)
}

// Configured implements follow.Follower; what it was started with, each compares with
// the leader's.
func (g *group) Configured(string) {}

// Stored implements follow.Follower.
func (g *group) Stored(c follow.Checkpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest = c
}

// Checkpoint implements follow.Follower.
func (g *group) Checkpoint() (step, arrived int64) { return g.job.Store.Step(), g.job.Store.Arrived() }

// Over implements follow.Follower.
func (g *group) Over(o follow.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over, g.overAt = &o, time.Now()
}

// wanted is a checkpoint of the group that this one lacks, false when there is none.
func (g *group) wanted() (follow.Checkpoint, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest, g.newest.Step > g.job.Store.Step()
}

var _ follow.Follower = (*group)(nil)
