package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol/config"
)

// Chance is a random history: some replicas, a job, trouble of every kind at
// random moments and points, then none. What must hold afterwards stands in
// Play.
type Chance struct {
	Without []string // kinds of trouble that do not happen, by name

	w     *World
	rng   *rand.Rand
	bad   string // the one replica that may be sick at the end, "" when none is
	born  int
	quiet time.Duration // until then what was begun has an end

	copies  int  // of the folder, so far
	slipped bool // a sum has gone bad
}

// ChanceConfig is the job of a random history.
func ChanceConfig(seed uint64) Config {
	rng := rand.New(rand.NewPCG(seed, 1))
	pick := func(n int) int { return rng.IntN(n) }
	cfg := Config{Seed: seed, Steps: int64(12 + pick(30)), Pace: []time.Duration{2, 10, 10, 50, 400}[pick(5)] * time.Millisecond}
	copies := []string{"all", "all", "1", "2", "2", "3"}[pick(6)]
	every := []int64{0, 1, 3, 5, 5}[pick(5)]
	minimum := 1 + pick(2)
	cfg.Change = func(j *config.Job) {
		j.QueueCopies, j.CheckpointEvery, j.MinReplicas = copies, every, minimum
	}
	return cfg
}

// trouble is one kind of it. Its weight says how often it happens.
type trouble struct {
	name   string
	weight int
	make   func(c *Chance)
}

// troubles are all kinds.
func troubles() []trouble {
	return []trouble{
		{"crash", 4, func(c *Chance) {
			name := c.anybody()
			c.w.Crash(name)
			if c.odds(2) {
				c.later(c.between(0, 8*time.Second), func() { c.w.Start(name, Engine{}) })
			}
		}},
		{"join", 3, func(c *Chance) { c.join(Engine{}) }},
		{"slow joiner", 1, func(c *Chance) { c.join(Engine{Start: c.between(5*time.Second, 3*time.Minute)}) }},
		{"slow member", 1, func(c *Chance) {
			pace := c.between(0, 2*time.Second)
			c.w.Tune(c.anybody(), func(e *Engine) { e.Pace = pace })
		}},
		{"leave", 1, func(c *Chance) {
			if len(c.w.Replicas()) > 1 {
				c.w.Leave(c.anybody())
			}
		}},
		{"coordinator crash", 4, func(c *Chance) { c.restart(c.until(c.between(0, 15*time.Second)), func() {}) }},
		{"the leader is deposed", 3, func(c *Chance) { c.w.Depose() }},
		{"the leader is cut from the others", 3, func(c *Chance) {
			leader := c.w.Leader()
			var from []string
			if c.odds(2) {
				from = c.w.Replicas()
			}
			for _, host := range append(from, c.w.Members()...) {
				if leader != "" && host != leader {
					c.w.Cut(leader, host)
					if c.odds(2) {
						c.w.Cut(host, leader)
					}
					c.later(c.between(0, 25*time.Second), func() { c.w.Rejoin(leader, host) })
				}
			}
		}},
		{"a coordinator of the group crashes", 2, func(c *Chance) {
			if all := c.w.Members(); len(all) > 0 {
				c.w.Crash(all[c.rng.IntN(len(all))])
				c.later(c.between(0, 15*time.Second), c.revive)
			}
		}},
		{"the end of the log is lost", 3, func(c *Chance) {
			n := 1 + c.rng.IntN(20)
			c.alone(func() { c.w.LoseTail(n) })
		}},
		{"a new host", 2, func(c *Chance) { c.alone(c.w.EmptyFolder) }},
		{"an old copy", 1, func(c *Chance) {
			if len(c.w.Members()) > 0 {
				return
			}
			c.copies++
			host := fmt.Sprintf("copy-%d", c.copies)
			c.w.CopyFolder(host)
			// All is drawn now: what happens later must not draw, nor change c.
			when, back := c.between(0, 10*time.Second), c.between(0, 15*time.Second)
			c.until(when + back)
			after(when, func() {
				// When the job is over its replicas go: an old copy in place of what they
				// left is the end of it, whatever anybody does.
				if c.goesOnYet() {
					c.restart(back, func() { c.w.RestoreFolder(host) })
				}
			})
		}},
		{"coordinator crash at a point", 6, func(c *Chance) {
			what := []string{"send commit", "send round", "append", "appended", "record", "save round", "save", "store", "stored",
				"send welcome", "send again", "get ready", "get applied", "get hello", "send stop"}[c.rng.IntN(15)]
			back := c.between(0, 8*time.Second)
			c.next(c.coordinator(), what, Fault{Kind: Crash, Then: func(w *World) {
				w.Sleep(back)
				c.revive()
			}})
		}},
		{"crash at a point", 6, func(c *Chance) {
			what := []string{"get commit", "get round", "send ready", "send applied", "send hello", "update", "keys", "backward",
				"ring", "upload", "download", "get welcome", "engine", "get stop"}[c.rng.IntN(14)]
			c.next(c.anybody(), what, Fault{Kind: Crash})
		}},
		{"break at a point", 4, func(c *Chance) {
			what := []string{"get commit", "get round", "send ready", "send applied", "send hello", "update", "ring"}[c.rng.IntN(7)]
			c.next(c.anybody(), what, Fault{Kind: Break})
		}},
		{"pause", 3, func(c *Chance) { c.w.Pause(c.anybody(), c.until(c.between(0, 20*time.Second))) }},
		{"coordinator pause", 2, func(c *Chance) { c.w.Pause(Coordinator, c.until(c.between(0, 20*time.Second))) }},
		{"break", 3, func(c *Chance) { c.w.BreakConnection(c.anybody()) }},
		{"late ends", 1, func(c *Chance) { c.w.LateEnds(c.between(0, 6*time.Second)) }},
		{"partition", 4, func(c *Chance) {
			a, b := c.anybody(), c.anybody()
			if c.odds(2) {
				b = c.coordinator()
			}
			if a == b {
				return
			}
			if c.odds(2) {
				a, b = b, a
			}
			c.w.Cut(a, b)
			if c.odds(2) {
				c.w.Cut(b, a)
			}
			c.later(c.between(0, 25*time.Second), func() { c.w.Rejoin(a, b) })
		}},
		{"everybody away", 2, func(c *Chance) {
			all, from := c.w.Replicas(), c.coordinator()
			for _, name := range all {
				c.w.Partition(name, from)
			}
			c.later(c.between(2*time.Second, 20*time.Second), func() {
				for _, name := range all {
					c.w.Rejoin(name, from)
				}
			})
		}},
		{"slow link", 2, func(c *Chance) {
			a, b := c.anybody(), c.anybody()
			c.w.Slow(a, b, c.between(0, 300*time.Millisecond))
			c.later(c.between(0, 20*time.Second), func() { c.w.Slow(a, b, 0) })
		}},
		{"slow uplink", 1, func(c *Chance) { c.w.Uplink(c.anybody(), c.between(0, 3*time.Second)) }},
		{"damaged upload", 1, func(c *Chance) { c.w.DamageUpload(c.anybody()) }},
		{"a bit of the sums flips", 2, func(c *Chance) {
			if !c.slipped { // two that slip alike in one step are a majority
				c.slipped = true
				c.w.Tune(c.anybody(), func(e *Engine) { e.Slips = true })
			}
		}},
		{"disk stall", 2, func(c *Chance) { c.w.StallDisk(c.until(c.between(0, 30*time.Second))) }},
		{"disk full", 1, func(c *Chance) { c.w.FillDisk(c.until(c.between(0, 30*time.Second))) }},
		{"failing member", 1, func(c *Chance) {
			if name := c.anybody(); len(c.w.Replicas()) > 1 {
				c.w.ExpectEnd(name)
				c.w.Tune(name, func(e *Engine) { e.Fail = errors.New("no memory left") })
			}
		}},
		{"hanging member", 1, func(c *Chance) {
			if name := c.anybody(); c.bad == "" && len(c.w.Replicas()) > 1 {
				c.bad = name
				c.w.ExpectEnd(name)
				where := []string{"keys", "query", "backward", "update"}[c.rng.IntN(4)]
				c.w.Tune(name, func(e *Engine) { e.Hang = where })
			}
		}},
	}
}

// Play is the history. With the trouble over, and at most one replica that is
// still sick, the job goes on and comes to its end, and everybody ends.
func (c *Chance) Play(w *World) {
	c.w, c.rng = w, rand.New(rand.NewPCG(w.cfg.Seed, 2))
	var all []trouble
	for _, t := range troubles() {
		for range t.weight {
			if !slices.Contains(c.Without, t.name) {
				all = append(all, t)
			}
		}
	}
	if c.odds(3) {
		w.Group(3)
	}
	w.StartCoordinator(nil)
	for range 2 + c.rng.IntN(3) {
		c.join(Engine{})
	}
	for range 1 + c.rng.IntN(8) {
		// Sometimes one thing right after another.
		w.Sleep(time.Duration(float64(3*time.Second) * c.rng.Float64() * c.rng.Float64() * c.rng.Float64()))
		t := all[c.rng.IntN(len(all))]
		w.Log("trouble: %s", t.name)
		t.make(c)
	}
	w.Sleep(c.quiet - w.now() + time.Millisecond) // when what lasted until then has ended
	c.calm()
}

// calm ends all trouble but that of the bad replica.
func (c *Chance) calm() {
	w := c.w
	w.Log("calm")
	w.mu.Lock()
	w.cfg.Plan = nil
	clear(w.links.cut)
	clear(w.links.away)
	clear(w.links.slow)
	clear(w.links.uplinks)
	clear(w.links.flips)
	w.lateEnds = 0
	w.mu.Unlock()
	w.linksChanged()
	w.Sleep(10 * time.Second) // those that are to be started again are
	c.revive()
	healthy := slices.DeleteFunc(w.Replicas(), func(name string) bool { return name == c.bad })
	if len(healthy) < 2 && c.goesOnYet() {
		c.join(Engine{})
		c.join(Engine{})
	}
	if c.bad != "" {
		c.goesOn(2*time.Hour, func() bool { return !w.Unfinished() }) // it is seen to hang
		w.Crash(c.bad)
	}
	if w.Unfinished() {
		// A disk that stood still, a member that was left out for a while: the
		// longest of the waits after which all is as before.
		next := w.Committed() + 1
		again := func() bool { return w.Committed() >= next || !w.Unfinished() }
		if !c.goesOn(3*time.Minute, again) {
			w.Must(0, "another step", again)
		}
	}
	w.Must(time.Hour, "the end of the job", func() bool { return !w.Unfinished() })
	w.Must(2*time.Hour, "the end of every process", func() bool { return w.Of(Coordinator) == nil && len(w.Replicas()) == 0 })
	w.Done()
}

// restart kills the coordinator, does something to what it leaves, and starts it again
// after a while.
func (c *Chance) restart(back time.Duration, then func()) {
	c.w.Crash(Coordinator)
	then()
	after(back, c.revive)
}

// alone is restart of a coordinator that is not one of a group: those do not lose
// what they have replicated.
func (c *Chance) alone(then func()) {
	if len(c.w.Members()) == 0 {
		c.restart(c.until(c.between(0, 15*time.Second)), then)
	}
}

// revive starts coordinators that do not run, as long as there is something to do.
func (c *Chance) revive() {
	if c.goesOnYet() && (c.w.Of(Coordinator) == nil || len(c.w.Members()) > 0) {
		c.w.StartCoordinator(nil)
	}
}

// goesOnYet says whether there is something to do: steps, or, for a group that has lost
// its leader with the last checkpoint, what the others do not have of it.
func (c *Chance) goesOnYet() bool {
	if len(c.w.Members()) > 0 {
		return !c.w.Over()
	}
	return c.w.Unfinished()
}

// coordinator is the host of the one that leads, or would.
func (c *Chance) coordinator() string {
	if host := c.w.Leader(); host != "" {
		return host
	}
	if all := c.w.Members(); len(all) > 0 {
		return all[0]
	}
	return Coordinator
}

// goesOn is Until with somebody who does what the coordinator asks for when it cannot
// go on by itself.
func (c *Chance) goesOn(limit time.Duration, holds func() bool) bool {
	w := c.w
	helped := 0
	for end := w.now() + limit; !holds(); {
		if w.now() >= end {
			return false
		}
		w.Until(min(10*time.Second, end-w.now()), holds)
		refused := w.Of(Coordinator) == nil && w.Unfinished()
		if helped < 3 && (refused || strings.Contains(w.Status().Reason, "--log rebuild")) {
			helped++
			w.Log("somebody starts the coordinator with --log rebuild")
			w.Crash(Coordinator)
			w.StartCoordinator(func(cfg *coordinator.Config) { cfg.Rebuild = true })
			end = max(end, w.now()+limit)
		}
	}
	return true
}

func (c *Chance) join(e Engine) {
	c.born++
	name := fmt.Sprintf("r%d", c.born)
	c.w.Start(name, e)
}

// anybody is a replica that runs, or one that did.
func (c *Chance) anybody() string {
	if all := c.w.Replicas(); len(all) > 0 {
		return all[c.rng.IntN(len(all))]
	}
	return "r1"
}

func (c *Chance) odds(oneIn int) bool { return c.rng.IntN(oneIn) == 0 }

// between is a time between two, short ones more often.
func (c *Chance) between(low, high time.Duration) time.Duration {
	return low + time.Duration(float64(high-low)*c.rng.Float64()*c.rng.Float64())
}

// until notes that something lasts for so long.
func (c *Chance) until(d time.Duration) time.Duration {
	c.quiet = max(c.quiet, c.w.now()+d)
	return d
}

// later does something when some time has passed.
func (c *Chance) later(d time.Duration, do func()) { after(c.until(d), do) }

// next makes something go wrong one of the next times that a host does what.
func (c *Chance) next(host, what string, f Fault) { c.w.Next(host, what, c.rng.IntN(3), f) }
