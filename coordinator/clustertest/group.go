package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mochi/coordinator"
)

// group is three or five coordinators with one replicated log, as package quorum makes
// them, seen from outside: who leads, what is in the log, and what each knows of that.
//
// A member that reaches no majority leads no longer, and finds that out by itself. The
// others elect another one, maybe before it has: then there are two that believe that
// they lead for a while, of which one is right. What the other writes waits until it
// knows better, and may be in the log nonetheless, when only the answers were lost.
type group struct {
	w     *World
	hosts []string
	own   map[string]*disk // by host: its checkpoints
	reign *reign           // who leads, in truth; nil: nobody
	races int              // elections under way
	told  int64            // the step of the newest checkpoint that all have been told of
	over  bool             // the job has ended
	err   error            // as

	fetching map[string]bool // hosts that look for a checkpoint, or fetch one
}

// reign is the time in which one process leads.
type reign struct {
	p       *Process
	end     chan struct{} // closed when the process knows that it is over
	ended   bool          // it is closed
	started bool          // the process has noticed that it leads
	doubt   bool          // it has been seen without a majority
}

// What package quorum's timeouts make of it.
const (
	leaseLow, leaseHigh       = 500 * time.Millisecond, 1500 * time.Millisecond // until a leader knows that it is none
	electionLow, electionHigh = time.Second, 2500 * time.Millisecond
	fetchLow, fetchHigh       = 5 * time.Millisecond, 400 * time.Millisecond // of a checkpoint, by the others
	fetchAgain                = 2 * time.Second
)

var errNoMajority = errors.New("no majority has it yet")

// Group makes the history's coordinator one of n that are one. It is called before
// anything is started; StartCoordinator starts them all. Where a history speaks of the
// coordinator it means the one that leads.
func (w *World) Group(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := &group{w: w, own: map[string]*disk{}, fetching: map[string]bool{}}
	for i := range n {
		host := fmt.Sprintf("%s-%c", Coordinator, 'a'+i)
		g.hosts = append(g.hosts, host)
		g.own[host] = w.newDisk()
	}
	w.group = g
}

// Members are the hosts of the group.
func (w *World) Members() []string {
	if w.group == nil {
		return nil
	}
	return slices.Clone(w.group.hosts)
}

// Over says whether all members of the group know that the job has ended.
func (w *World) Over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.group != nil && w.group.over
}

// Leader is the host of the coordinator that leads, "" when none does.
func (w *World) Leader() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.group; g != nil && g.reign != nil {
		return g.reign.p.name
	}
	return ""
}

// leading is the host that is meant by a name. The lock is held.
func (w *World) leading(name string) string {
	g := w.group
	if name != Coordinator || g == nil {
		return name
	}
	if g.reign != nil && !g.reign.p.dead {
		return g.reign.p.name
	}
	for _, p := range w.processes {
		if g.has(p.name) && !p.dead {
			return p.name
		}
	}
	return name
}

// leads says whether a coordinator's word counts. The lock is held.
func (w *World) leads(p *Process) bool {
	return w.group == nil || w.group.reign != nil && w.group.reign.p == p
}

// has says whether a host is one of the group's.
func (g *group) has(host string) bool { return g != nil && slices.Contains(g.hosts, host) }

// disks are the folders of the members. The lock is held.
func (g *group) disks() (list []*disk) {
	if g != nil {
		for _, host := range g.hosts {
			list = append(list, g.own[host])
		}
	}
	return list
}

// majority says whether a member and those that it can talk to are most of the group.
// The lock is held.
func (g *group) majority(p *Process) bool {
	if p.dead || p.paused != nil {
		return false
	}
	n := 0
	for _, host := range g.hosts {
		for _, other := range g.w.running(host) {
			if other == p || other.paused == nil && g.w.links.both(p.name, host) {
				n++
			}
		}
	}
	return 2*n > len(g.hosts)
}

// look takes notice of what has changed. The lock is held.
func (g *group) look() {
	if g == nil || g.over {
		return
	}
	if r := g.reign; r != nil && !r.doubt && !g.majority(r.p) {
		r.doubt = true
		after(g.w.draw("lease", leaseLow, leaseHigh), func() { g.doubts(r, true) })
		after(g.w.draw("election", electionLow, electionHigh), func() { g.doubts(r, false) })
	}
	if g.reign == nil && g.races == 0 {
		g.races++
		after(g.w.draw("election", electionLow, electionHigh), g.elect)
	}
}

// doubts looks again at a leader that had no majority: it itself does, or the others.
func (g *group) doubts(r *reign, itself bool) {
	w := g.w
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case g.reign == r && g.majority(r.p):
		r.doubt = false
		return
	case itself && r.p.paused != nil: // it will when it wakes
		return
	case itself:
		r.stop()
	}
	if g.reign == r {
		w.note(r.p, "leads no longer", 0)
		g.reign = nil
		g.look()
	}
	if !itself {
		g.learns(r)
	}
}

// learns lets a leader that is deposed find out, at the latest when its lease is over.
// The lock is held.
func (g *group) learns(r *reign) {
	after(g.w.draw("lease", leaseLow, leaseHigh), func() {
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		if r.p.paused != nil && !r.p.dead {
			g.learns(r)
			return
		}
		r.stop()
	})
}

// stop lets its process know that it leads no longer. The lock is held.
func (r *reign) stop() {
	if !r.ended {
		r.ended = true
		close(r.end)
	}
}

// elect makes one of those that reach a majority the leader.
func (g *group) elect() {
	w := g.w
	w.mu.Lock()
	defer w.mu.Unlock()
	g.races--
	if g.reign != nil || g.over {
		return
	}
	var able []*Process
	for _, host := range g.hosts {
		for _, p := range w.running(host) {
			if g.majority(p) {
				able = append(able, p)
			}
		}
	}
	if len(able) == 0 {
		return // somebody will come back, and look
	}
	p := able[w.draw("elected", 0, time.Duration(len(able)))]
	for _, other := range able { // to whom it hands over
		if p.disk.step() < g.told && other.disk.step() >= g.told {
			p = other
		}
	}
	w.note(p, "is elected", 0)
	g.reign = &reign{p: p, end: make(chan struct{})}
	g.fetchAll()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Depose makes the leader hand over to another member, as SIGTERM does, but it goes on.
func (w *World) Depose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.group; g != nil && g.reign != nil {
		r := g.reign
		w.note(r.p, "is deposed", 0)
		g.reign = nil
		g.learns(r)
		g.look()
	}
}

// write puts something into the replicated log for a process that believes that it
// leads.
func (g *group) write(ctx context.Context, p *Process, what string, do func() error) error {
	w := g.w
	done := false
	for {
		err := p.write(ctx, what, func() error {
			leads := g.reign != nil && g.reign.p == p
			switch {
			case leads && done, leads && g.majority(p):
			case leads && !done && w.draw("unheard", 0, 2) == 0:
				done = true // most have it, but their answers do not arrive
				if err := do(); err != nil {
					return err
				}
				return errNoMajority
			default:
				return errNoMajority
			}
			if done {
				return nil
			}
			done = true
			return do()
		})
		if !errors.Is(err, errNoMajority) {
			return err
		}
		w.mu.Lock()
		wait := w.draw("majority", 5*time.Millisecond, 50*time.Millisecond)
		w.mu.Unlock()
		if err := p.wait(ctx, wait); err != nil {
			return err
		}
	}
}

// stored tells the other members of a checkpoint, which they fetch from whoever leads.
// The lock is held.
func (g *group) stored(from *Process, step int64) {
	if g == nil || !g.w.leads(from) {
		return
	}
	if g.majority(from) {
		g.told = max(g.told, step)
	}
	g.fetchAll()
}

// copied returns when most members hold a checkpoint, as the leader hears from them.
func (g *group) copied(ctx context.Context, p *Process, step int64) error {
	w := g.w
	for {
		w.mu.Lock()
		have := 0
		for _, host := range g.hosts {
			all := w.running(host)
			if len(all) > 0 && (all[0] == p || all[0].paused == nil && w.links.both(p.name, host)) && g.own[host].step() >= step {
				have++
			}
		}
		leads, wait := w.leads(p), w.draw("copied", 10*time.Millisecond, 100*time.Millisecond)
		w.mu.Unlock()
		switch {
		case !leads:
			return fmt.Errorf("the checkpoint of step %d: %w", step, coordinator.ErrFenced)
		case 2*have > len(g.hosts):
			return p.pass("copied", "")
		}
		if err := p.wait(ctx, wait); err != nil {
			return err
		}
	}
}

// fetchAll makes all members look for the newest checkpoint. The lock is held.
func (g *group) fetchAll() {
	if g == nil {
		return
	}
	for _, host := range g.hosts {
		if !g.fetching[host] {
			g.fetching[host] = true
			g.fetch(host, g.w.draw(host+" fetches", fetchLow, fetchHigh)+pieces*g.w.uplink(host))
		}
	}
}

// fetch lets one member fetch it, in a while, and try again when that fails. The lock is
// held.
func (g *group) fetch(host string, in time.Duration) {
	w, r := g.w, g.reign
	after(in, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		own := g.own[host].step()
		switch all := w.running(host); {
		case len(all) == 0, g.over, g.reign == nil, own >= g.told: // until something changes
			g.fetching[host] = false
		case g.reign != r, all[0].paused != nil, r.p.dead || r.p.paused != nil, r.p.name == host, r.p.disk.step() <= own, !w.links.both(r.p.name, host):
			g.fetch(host, fetchAgain+w.draw(host+" fetches", fetchLow, fetchHigh)+pieces*w.uplink(host))
		default:
			g.own[host].keep(*r.p.disk.latest, r.p.disk.files[r.p.disk.latest.Name])
			g.fetching[host] = false
			g.fetchAll()
		}
	})
}

// StartMember starts the coordinator of one of the group's hosts.
func (w *World) StartMember(host string) *Process {
	w.apart()
	w.mu.Lock()
	g := w.group
	p := w.process(host, fmt.Sprintf("%s-%d", host, len(w.processes)))
	p.disk, p.journal = g.own[host], w.disk
	w.note(p, "starts", 0)
	g.look()
	g.fetchAll()
	w.mu.Unlock()
	p.run(func(ctx context.Context) error { return g.serve(ctx, p) })
	return p
}

// serve is the life of one member: it stands by until it leads, and leads until it is
// deposed or the job has ended.
func (g *group) serve(ctx context.Context, p *Process) error {
	w := g.w
	for {
		r, err := g.await(ctx, p)
		if r == nil {
			return err
		}
		lead, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-r.end:
			case <-lead.Done():
			}
			cancel()
		}()
		w.mu.Lock()
		bus := w.startServer(p)
		server := coordinator.New(w.config(p, bus))
		p.stop = server.Stop
		w.note(p, "leads", 0)
		w.mu.Unlock()
		err = server.Run(lead)
		cancel()
		w.mu.Lock()
		bus.shut()
		dead := p.dead
		ended := !dead && g.reign == r && !r.ended && !errors.Is(err, coordinator.ErrFenced)
		if ended {
			g.over, g.err = true, err
		}
		w.mu.Unlock()
		w.wake()
		switch {
		case dead:
			return errDead
		case ended:
			return err
		}
		select { // fenced, or deposed: both are known by then, or soon
		case <-r.end:
		case <-ctx.Done():
			return errDead
		}
	}
}

// await waits until a process leads; no reign: the job has ended, with an error or not.
func (g *group) await(ctx context.Context, p *Process) (*reign, error) {
	w := g.w
	for {
		if err := p.gate(); err != nil {
			return nil, err
		}
		w.mu.Lock()
		r, over, changed := g.reign, g.over, w.changed
		if r != nil && r.p == p && !r.started {
			r.started = true
			w.mu.Unlock()
			return r, nil
		}
		err := g.err
		w.mu.Unlock()
		if over {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errDead
		}
	}
}
