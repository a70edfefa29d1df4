package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/evaluate"
	"mochi/cmd/mochi/run"
	"mochi/coordinator/identity"
	"mochi/coordinator/quorum"
)

// group is one coordinator of several, of which one leads. The log of the group
// (package quorum) says which; it runs the job as a single coordinator would, with that
// log in place of its own. The others stand by: they keep the run's files, and fetch
// each checkpoint. The process goes from the one to the other and back.
type group struct {
	*coordinating
	job  *run.Job
	node *quorum.Node
	knn  *evaluate.Evaluator
	stop *stopper

	heard *standbys      // what the one that leads hears of the others
	late  sync.WaitGroup // of attempts to connect that nobody waits for any more

	signals chan os.Signal // capacity 1: the first that asked this process to end

	mu       sync.Mutex
	newest   quorum.Checkpoint // of the group
	over     *quorum.Outcome   // the job has ended, and has not gone on since
	overAt   time.Time
	followed bool          // another coordinator has led while this process was there
	ended    chan struct{} // closed when this process is to end
	result   error         // with which
}

// standBy runs a coordinator of a group until the job is over, or it is told to go.
func standBy(k *coordinating) error {
	j, err := run.OpenMember(k.state, k.cfg, k.start, k.progress)
	if err != nil {
		return err
	}
	defer j.Close()
	g := &group{coordinating: k, job: j, heard: newStandbys(), signals: make(chan os.Signal, 1), ended: make(chan struct{})}
	g.knn = k.opened(j)
	if k.guard, err = k.access.open(k, k.root, k.progress); err != nil {
		return err
	}
	defer k.guard.close()
	listener, err := net.Listen("tcp", k.peers)
	if err != nil {
		return fmt.Errorf("listen for the other coordinators: %w; stop what is using the port, or choose another in --standby: NAME=HOST:PORT/PORT", err)
	}
	var peers *tls.Config
	if k.guard != nil {
		listener = tls.NewListener(listener, k.guard.Server(identity.Coordinator))
		if peers, err = k.guard.Client(); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	g.node, err = quorum.Start(quorum.Options{
		TLS: peers, Job: k.name, Name: k.self.Name, Members: k.members, Dir: run.Group(k.state), Listener: listener, Follow: g, Files: []string{run.LogFile, run.SamplesFile},
		Room: run.RoomUnder(k.state), Log: k.log,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer g.node.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
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
func (g *group) follow(ctx context.Context) (*quorum.Leadership, error) {
	if g.stop.asked() && len(g.signals) == 0 { // it was told while it led, and was deposed before it could obey
		return nil, g.leave()
	}
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() { g.tellStrangers(ctx) })
	owned.Go(func() { g.link(ctx) })
	type led struct {
		l   *quorum.Leadership
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
func (g *group) isOver() (quorum.Outcome, bool) {
	_, lacks := g.wanted()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over == nil || !g.followed {
		return quorum.Outcome{}, false
	}
	since := time.Since(g.overAt)
	return *g.over, since >= overAfter && (!lacks || since >= overWithin)
}

// outcome is the error with which a process ends as the job did.
func outcome(o quorum.Outcome) error {
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

// Held implements quorum.Follower.
func (g *group) Held(file string) (int64, error) { return g.job.Copies.Held(file) }

// Line implements quorum.Follower. Each leader begins with a line.
func (g *group) Line(file string, n int64, line []byte) error {
	g.mu.Lock()
	g.over = nil
	g.mu.Unlock()
	return g.job.Copies.Line(file, n, line)
}

// Sync implements quorum.Follower.
func (g *group) Sync() error { return g.job.Copies.Sync() }

// Read implements quorum.Follower.
func (g *group) Read(file string, n int64, bytes int) ([][]byte, error) {
	return g.job.Copies.Read(file, n, bytes)
}

// Configured implements quorum.Follower; what it was started with, each compares with
// the leader's.
func (g *group) Configured(string) {}

// Stored implements quorum.Follower.
func (g *group) Stored(c quorum.Checkpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest = c
}

// Checkpoint implements quorum.Follower.
func (g *group) Checkpoint() (step, arrived int64) { return g.job.Store.Step(), g.job.Store.Arrived() }

// Over implements quorum.Follower.
func (g *group) Over(o quorum.Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over, g.overAt = &o, time.Now()
}

// wanted is a checkpoint of the group that this one lacks, false when there is none.
func (g *group) wanted() (quorum.Checkpoint, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.newest, g.newest.Step > g.job.Store.Step()
}

var _ quorum.Follower = (*group)(nil)
