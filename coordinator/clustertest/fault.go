package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Point is a place in a history: the n-th time, from 0, that a host does
// something others can see. What names it: "send ready", "get commit", "append",
// "save", "ring", "keys", …
type Point struct {
	Host string
	What string
	N    int
}

func (p Point) String() string { return fmt.Sprintf("%s %s #%d", p.Host, p.What, p.N) }

// Kind is what goes wrong.
type Kind int

// The kinds of faults.
const (
	None  Kind = iota
	Crash      // the process is gone, before it does it
	Pause      // the process stands still for a while, before it does it
	Break      // its connections to the coordinator are reset (the coordinator's: all of them)
	Slow       // what it does takes a while longer; a message, and all behind it, is held up
	Fail       // what it does fails, where it can
	Lose       // the message that it gets is lost, as no bus does whose connection lasts
)

func (k Kind) String() string {
	return [...]string{"none", "crash", "pause", "break", "slow", "fail", "lose"}[k]
}

// Fault is what goes wrong at a Point.
type Fault struct {
	Kind Kind
	For  time.Duration // of Pause and Slow
	Then func(*World)  // after a Crash, on a goroutine of its own: to start something again
}

func (f Fault) String() string {
	if f.For > 0 {
		return fmt.Sprintf("%s %v", f.Kind, f.For)
	}
	return f.Kind.String()
}

// Next makes something go wrong when a host does what the next time, or so many times
// later.
func (w *World) Next(host, what string, later int, f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cfg.Plan == nil {
		w.cfg.Plan = map[Point]Fault{}
	}
	w.cfg.Plan[Point{host, what, w.points[Point{host, what, 0}] + later}] = f
}

// errFault is what fails because the plan says so.
var errFault = errors.New("it fails, as planned")

// errLost is what a message that is lost comes to.
var errLost = errors.New("it is lost, as planned")

// diskHost is whom it concerns when the disk is written to: then Slow is a disk
// that stands still.
const diskHost = "disk"

// pass is done before a process does what others can see: the plan may stop it
// there. host is whom it concerns.
func (p *Process) pass(what, host string) error {
	w := p.w
	w.mu.Lock()
	f, err := p.meet(what, host)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if f.Kind == Slow && host == "" {
		if err := p.wait(context.Background(), f.For); err != nil {
			return err
		}
	}
	return p.gate()
}

// touch is pass for what must not wait. The lock is held.
func (p *Process) touch(what, host string) error {
	_, err := p.meet(what, host)
	return err
}

// meet counts a point and does what the plan says. The lock is held.
func (p *Process) meet(what, host string) (Fault, error) {
	w := p.w
	if p.dead {
		return Fault{}, errDead
	}
	at := Point{p.name, what, 0}
	at.N = w.points[at]
	w.points[Point{p.name, what, 0}]++
	w.note(p, what, int64(at.N))
	f := w.cfg.Plan[at]
	if f.Kind == None {
		return f, nil
	}
	w.note(p, "FAULT "+f.String(), 0)
	switch f.Kind {
	case Crash:
		w.kill(p)
		if f.Then != nil {
			go f.Then(w)
		}
		return f, errDead
	case Pause:
		w.suspend(p, f.For)
	case Break:
		if p.client != nil {
			p.client.broken()
		}
		for _, s := range w.servers {
			for _, c := range slices.Clone(s.conns) {
				if s.p == p {
					c.client.broken()
				}
			}
		}
	case Slow:
		switch {
		case host == diskHost:
			p.disk.stalled = w.now() + f.For
		case host != "":
			w.stallLocked(p.name, host, f.For)
		}
	case Fail:
		return f, errFault
	case Lose:
		return f, errLost
	}
	return f, nil
}

// Kill ends a process at once, as SIGKILL does.
func (w *World) Kill(p *Process) {
	w.mu.Lock()
	w.kill(p)
	w.mu.Unlock()
	w.wake()
}

// Crash kills what runs on a host.
func (w *World) Crash(name string) {
	if p := w.Of(name); p != nil {
		w.Kill(p)
	}
}

// kill is Kill with the lock held.
func (w *World) kill(p *Process) {
	if p.dead {
		return
	}
	w.note(p, "is killed", 0)
	p.dead = true
	p.resume()
	p.cancel()
	w.connectionsOf(p, false)
	w.group.look()
}

// Pause makes what runs on a host stand still for a while, as SIGSTOP and
// SIGCONT do: it sends and computes nothing, and what arrives waits.
func (w *World) Pause(name string, d time.Duration) {
	w.mu.Lock()
	for _, p := range w.running(name) {
		w.suspend(p, d)
	}
	w.mu.Unlock()
}

// suspend is Pause with the lock held.
func (w *World) suspend(p *Process, d time.Duration) {
	if p.dead || p.paused != nil {
		return
	}
	w.note(p, "stands still", int64(d))
	stopped := make(chan struct{})
	p.paused, p.pausedFrom, p.pausedTo = stopped, w.now(), w.now()+d
	after(0, w.linksChanged)
	after(d, func() {
		w.mu.Lock()
		if p.paused == stopped {
			w.note(p, "goes on", 0)
			p.resume()
		}
		w.mu.Unlock()
		w.linksChanged()
	})
}

// hostOf is the host of the replica with an id.
func (w *World) hostOf(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.byID(id); p != nil {
		return p.name
	}
	return id
}
