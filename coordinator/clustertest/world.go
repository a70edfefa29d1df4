package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/splitmix"
)

// Config is what a history begins with. Zero fields take their default.
type Config struct {
	Seed   uint64          // of every delay; default 1
	Steps  int64           // of the job; default 12
	Change func(*job)      // of the job's settings; see Job
	Pace   time.Duration   // of one program of an engine; default 10 ms
	Plan   map[Point]Fault // what happens where

}

type job = config.Job

// Job is the job of a history: six groups of two samples, a queue of 40 keys in
// seven shards, a checkpoint every five steps.
func Job(steps int64) config.Job {
	j := config.Default()
	j.Arch, j.Head, j.ImageSize, j.Recipe = "resnet8", "linear", 4, "cifar"
	j.Batch, j.BNGroup = 12, 2
	j.Queue, j.QueueShards, j.Dim = 40, 7, 4
	j.MoCHi, j.MoCHiWarmup = config.MoCHi{N: 5, S: 4, S2: 2}, 1
	j.LR, j.Momentum, j.Steps = 0.05, 0.9, steps
	j.CheckpointEvery, j.KNNEvery, j.MinReplicas = 5, 0, 1
	return j
}

// samples is the length of the data set: no multiple of the batch.
const samples = 100

// dataInfo identifies the data set.
func dataInfo() protocol.Data { return protocol.Data{Kind: "test", Train: samples} }

// Coordinator is the name of the coordinator's host.
const Coordinator = "coordinator"

// World is one history: hosts, what runs on them, and what lies on their disks.
// The history's own goroutine calls its methods.
type World struct {
	cfg   Config
	job   config.Job
	began time.Time

	mu        sync.Mutex
	draws     map[string]uint64 // how many delays were drawn, by name
	processes []*Process        // all that ever ran
	links     *links
	servers   []*server         // the message servers in running coordinators, the last started last
	addresses map[string]string // host of the coordinator that a replica's host knows; "": any
	group     *group            // of coordinators with one replicated log; nil: there is no group
	lateEnds  time.Duration
	ends      map[seat]*end
	disk      *disk            // of the coordinator; of a group, what is replicated
	copies    map[string]*disk // folders of coordinators on other hosts
	reference []truth          // what the unbroken run has, by step
	check     checks
	learning  bool           // this is the unbroken run itself
	greeting  protocol.Hello // the last one of a replica that is ready to load
	failed    []string
	trace     trace
	points    map[Point]int // how often each was passed, for Points
	changed   chan struct{} // closed and made anew whenever something was committed or ended
}

// Process is one run of a coordinator or a replica.
type Process struct {
	w                    *World
	name                 string // of its host
	id                   string // unique to the run
	cancel               context.CancelFunc
	ctx                  context.Context
	dead                 bool
	paused               chan struct{} // closed when it goes on; nil: it runs
	pausedFrom, pausedTo time.Duration // the last time; still, when the end is far ahead
	done                 chan struct{} // closed when Run has returned
	err                  error         // of Run

	disk    *disk   // of a coordinator: its folder
	journal *disk   // where its commits are: the same, or what its group replicates
	client  *client // of a replica
	engine  *Engine
	leave   func(reason string)
	stop    func(reason string)
}

// Name is that of the host it runs on.
func (p *Process) Name() string { return p.name }

// errDead is what a process hears that has been killed.
var errDead = errors.New("killed")

func (w *World) process(name, id string) *Process {
	p := &Process{w: w, name: name, id: id, disk: w.disk, journal: w.disk, done: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	w.processes = append(w.processes, p)
	return p
}

// run runs the body of a process; a panic is a violation, not the end of the
// test.
func (p *Process) run(body func(ctx context.Context) error) {
	go func() {
		err := func() (err error) {
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("panic: %v", r)
					p.w.violated("%s panicked: %v", p.name, r)
				}
			}()
			return body(p.ctx)
		}()
		p.ended(err)
	}()
}

func (p *Process) ended(err error) {
	w := p.w
	w.mu.Lock()
	p.err = err
	killed := p.dead
	p.dead = true
	p.resume()
	w.note(p, "ends", 0)
	w.connectionsOf(p, !killed)
	w.mu.Unlock()
	p.cancel()
	close(p.done)
	if !killed {
		w.checkEnd(p, err)
	}
	w.wake()
}

// Dead says whether it has ended, by itself or killed.
func (p *Process) Dead() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.dead
}

// gate blocks while the process is suspended; it returns errDead once it is
// killed.
func (p *Process) gate() error {
	w := p.w
	for {
		w.mu.Lock()
		dead, paused := p.dead, p.paused
		w.mu.Unlock()
		switch {
		case dead:
			return errDead
		case paused == nil:
			return nil
		}
		<-paused
	}
}

// resume is called with the lock held.
func (p *Process) resume() {
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
}

// wait lets virtual time pass for a process: d, and as long as it is suspended.
func (p *Process) wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ctx.Done():
			return errDead
		}
	}
	return p.gate()
}

// draw is a time between low and high that nothing but the seed, a name and how
// often it was asked for decides. The lock is held.
func (w *World) draw(name string, low, high time.Duration) time.Duration {
	n := w.draws[name]
	w.draws[name] = n + 1
	h := splitmix.Mix(hashString(w.cfg.Seed, name) + n)
	return low + time.Duration(h%uint64(max(1, high-low)))
}

// after calls f when some time has passed, without the lock.
func after(d time.Duration, f func()) { time.AfterFunc(d, f) }

// now is the time since the history began.
func (w *World) now() time.Duration { return time.Since(w.began) }

// wake makes those look again that wait for something to change.
func (w *World) wake() {
	w.mu.Lock()
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
}

// Log adds a line of the history's own to the trace.
func (w *World) Log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(nil, fmt.Sprintf(format, args...), 0)
}

// Errorf says that a property of this history is violated. The history goes on.
func (w *World) Errorf(format string, args ...any) { w.violated(format, args...) }

func (w *World) violated(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violatedLocked(format, args...)
}

func (w *World) violatedLocked(format string, args ...any) {
	text := fmt.Sprintf("%.3f s: ", w.now().Seconds()) + fmt.Sprintf(format, args...)
	w.note(nil, "VIOLATED "+text, 0)
	if len(w.failed) < 20 {
		w.failed = append(w.failed, text)
	}
}

// running are the living processes of a host. The coordinator of a group is the one
// that leads.
func (w *World) running(name string) []*Process {
	name = w.leading(name)
	return slices.DeleteFunc(slices.Clone(w.processes), func(p *Process) bool { return p.name != name || p.dead })
}

// Of is the living process of a host, nil when there is none.
func (w *World) Of(name string) *Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.running(name); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// Replicas are the names of the hosts on which a replica lives, sorted.
func (w *World) Replicas() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, p := range w.processes {
		if p.client != nil && !p.dead {
			names = append(names, p.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Sleep lets time pass.
func (w *World) Sleep(d time.Duration) { time.Sleep(d) }

// Until waits until a condition holds, for so long at most, and says whether it
// does. What it waits for should follow from commits or ends of processes.
func (w *World) Until(limit time.Duration, holds func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if holds() {
			return true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return holds()
		}
	}
}

// Must is Until, and a violation when it does not hold in time.
func (w *World) Must(limit time.Duration, what string, holds func() bool) bool {
	if w.Until(limit, holds) {
		return true
	}
	w.violated("not within %v: %s; the coordinator says %q; %s", limit, what, w.reason(), strings.Join(w.standing(), ", "))
	return false
}

// standing says how the processes stand, for people.
func (w *World) standing() (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.processes {
		state := "runs"
		switch {
		case p.dead && p.err != nil:
			state = "ended: " + p.err.Error()
		case p.dead:
			state = "ended"
		case p.paused != nil:
			state = "is suspended"
		}
		lines = append(lines, p.name+" "+state)
	}
	return lines
}

// Committed is the last step of the log.
func (w *World) Committed() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.disk.head()
}

// Commits waits until n more steps are committed, a violation when they are not
// within the limit.
func (w *World) Commits(n int64, limit time.Duration) bool {
	want := w.Committed() + n
	return w.Must(limit, fmt.Sprintf("step %d", want), func() bool { return w.Committed() >= want })
}

// Reaches waits until a step is committed, likewise.
func (w *World) Reaches(step int64, limit time.Duration) bool {
	return w.Must(limit, fmt.Sprintf("step %d", step), func() bool { return w.Committed() >= step })
}

// Spread makes the queue's shards have so many copies.
func Spread(copies string) func(*config.Job) {
	return func(j *config.Job) { j.QueueCopies = copies }
}

// ManyGroups makes the batch one of 24 groups, for up to 24 members.
func ManyGroups(j *config.Job) { j.Batch, j.BNGroup = 48, 2; j.Queue = 60 }

// EveryStep stores a checkpoint after every step.
func EveryStep(j *config.Job) { j.CheckpointEvery = 1 }
