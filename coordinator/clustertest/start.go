package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica"
	"mochi/replica/data"
	"mochi/replica/input"
	"mochi/replica/replicatest"
)

// Engine is how a replica computes. The zero value computes at Config.Pace.
type Engine struct {
	Start time.Duration // what its start takes
	Pace  time.Duration // what a program takes; 0: Config.Pace
	Hang  string        // from now on this program (keys, query, backward, update) computes for ever
	Fail  error         // from now on every program fails
	Evil  bool          // from now on gradients have a wrong bit
	Adds  bool          // from now on it adds gradients up wrongly, by one bit
	Slips bool          // one bit of the next sum that it gets from others flips in its memory
}

// orphaned is for how long a replica does without a coordinator, as is usual.
const orphaned = 30 * time.Minute

// StartCoordinator starts a coordinator on its host, or all of a group that do not run.
// change may change what it is given; nil: nothing.
func (w *World) StartCoordinator(change func(*coordinator.Config)) (p *Process) {
	if w.group == nil {
		return w.startCoordinator(Coordinator, w.disk, change)
	}
	for _, host := range w.group.hosts {
		if w.Of(host) == nil {
			p = w.StartMember(host)
		}
	}
	return p
}

// CopyFolder makes a copy of the coordinator's folder, as it is now, on another host.
func (w *World) CopyFolder(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "the folder is copied to "+host, 0)
	d := *w.disk
	d.commits, d.notes, d.rounds, d.files = slices.Clone(d.commits), maps.Clone(d.notes), map[int64]string{}, maps.Clone(d.files)
	w.copies[host] = &d
}

// StartCopy starts a coordinator on the copy of the folder that a host has.
func (w *World) StartCopy(host string, change func(*coordinator.Config)) *Process {
	return w.startCoordinator(host, w.copies[host], change)
}

// Move gives the replica of a host the address of one coordinator, in place of all. A
// connection to another one breaks.
func (w *World) Move(name, coordinator string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, name+" is told the address of "+coordinator, 0)
	w.addresses[name] = coordinator
	for _, p := range w.running(name) {
		if p.client != nil && p.client.conn != nil && p.client.conn.server.p.name != coordinator {
			p.client.broken()
		}
	}
}

// config is what a coordinator is given.
func (w *World) config(p *Process, bus *server) coordinator.Config {
	cfg := coordinator.Config{
		Job: "sim", Instance: p.id, Binary: "b", Training: w.job, ConfigDigest: w.job.Digest(),
		LR:  func(float64) float64 { return w.job.LR },
		Bus: bus, Log: &log{p: p}, Checkpoints: &store{p}, Observer: observer{p},
		Recorded: p.journal.recorded, Key: []byte("the key of the job"), Logger: slog.New(slog.DiscardHandler),
	}
	if g := w.group; g != nil {
		cfg.Copied = func(ctx context.Context, step int64) error { return g.copied(ctx, p, step) }
	}
	return cfg
}

func (w *World) startCoordinator(host string, on *disk, change func(*coordinator.Config)) *Process {
	w.apart()
	w.mu.Lock()
	p := w.process(host, fmt.Sprintf("%s-%d", host, len(w.processes)))
	p.disk, p.journal = on, on
	bus := w.startServer(p)
	cfg := w.config(p, bus)
	w.note(p, "starts", 0)
	w.mu.Unlock()
	if change != nil {
		change(&cfg)
	}
	server := coordinator.New(cfg)
	p.stop = server.Stop
	p.run(func(ctx context.Context) error {
		err := server.Run(ctx)
		if p.Dead() {
			return errDead
		}
		return err
	})
	return p
}

// apart lets a moment pass, so that no two processes start, and tick, at the same
// instants.
func (w *World) apart() {
	w.mu.Lock()
	d := w.draw("starts", time.Microsecond, time.Millisecond)
	w.mu.Unlock()
	time.Sleep(d)
}

// Start starts a replica on the host of that name, with the engine e. A history
// may change what e says while it runs, with Tune.
func (w *World) Start(name string, e Engine) *Process {
	w.apart()
	w.mu.Lock()
	p := w.process(name, fmt.Sprintf("%s-%d", name, len(w.processes)))
	p.engine = &e
	c := w.connect(p)
	w.note(p, "starts", 0)
	w.mu.Unlock()
	set := replicatest.Pictures{N: samples, Size: 4}.Set()
	set.Info = dataInfo()
	r := replica.New(replica.Config{
		ID: p.id, Name: name, Binary: "b",
		Engine: p.openEngine, Info: fakeInfo(), Data: (*data.Set)(set), Link: c, Ring: p.openRing, Orphaned: orphaned,
		Network: tiny, Images: func(config.Job) input.Source { return &fakeImages{} },
	})
	p.leave = func(reason string) { r.Leave(reason, 0) }
	p.run(func(ctx context.Context) error {
		err := r.Run(ctx)
		if p.Dead() {
			return errDead
		}
		return err
	})
	return p
}

// Tune changes how the replica of a host computes.
func (w *World) Tune(name string, change func(*Engine)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.running(name) {
		if p.engine != nil {
			change(p.engine)
			if p.engine.Evil || p.engine.Adds {
				w.check.evil[name] = true
			}
		}
	}
}

// Leave asks the replica of a host to leave in order, as Ctrl-C does.
func (w *World) Leave(name string) {
	if p := w.Of(name); p != nil && p.leave != nil {
		w.Log("%s is asked to leave", name)
		p.leave("asked to")
	}
}

// Stop asks the coordinator for an orderly stop, as Ctrl-C does.
func (w *World) Stop() {
	if p := w.Of(Coordinator); p != nil && p.stop != nil {
		w.Log("the job is asked to stop")
		p.stop("asked to")
	}
}

func (p *Process) openEngine(engine.Precision) (engine.Engine, error) {
	if err := p.pass("engine", ""); err != nil {
		return nil, err
	}
	if err := p.wait(p.ctx, p.engine.Start); err != nil {
		return nil, err
	}
	return &fakeEngine{p}, nil
}

// compute lets the time of a program pass.
func (p *Process) compute(what string) error {
	if err := p.pass(what, ""); err != nil {
		return err
	}
	w := p.w
	w.mu.Lock()
	e := *p.engine
	pace := e.Pace
	if pace == 0 {
		pace = w.cfg.Pace
	}
	took := w.draw(p.name+" computes", pace/2, pace*3/2)
	w.mu.Unlock()
	switch {
	case e.Fail != nil:
		return e.Fail
	case e.Hang == what:
		<-p.ctx.Done()
		return errDead
	}
	return p.wait(p.ctx, took)
}

func (p *Process) wrong() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.engine.Evil
}

// RestoreFolder puts the copy of the folder that a host has in place of the
// coordinator's. No coordinator may be running on it.
func (w *World) RestoreFolder(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "the folder is that of "+host, 0)
	w.disk = w.copies[host]
	w.check.short = true
}

// CommittedOn is the last step in the log of a copy of the folder.
func (w *World) CommittedOn(host string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.copies[host].head()
}

// OtherSettings puts a new log in place of the one that there is, as a start with other
// settings than it is for does: steps after the checkpoint are to be run again. No
// coordinator may be running.
func (w *World) OtherSettings() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, "the settings are others", 0)
	d := w.disk
	d.commits, d.recorded = nil, 0
	if d.latest != nil {
		d.recorded = d.latest.Step
	}
	d.notes[coordinator.NoteSince] = fmt.Sprint(d.term + 1)
	w.check.short = true
}

// Flood makes the replica of a host say so many heartbeats at once.
func (w *World) Flood(name string, n int) {
	p := w.Of(name)
	w.Log("%s says %d heartbeats", name, n)
	for range n {
		if err := p.client.Send(p.ctx, protocol.Message{Heartbeat: &protocol.Heartbeat{Phase: protocol.PhaseComputing}}); err != nil {
			w.Errorf("a heartbeat: %v", err)
			return
		}
	}
}
