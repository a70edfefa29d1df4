package data

import "time"

// crew decides how many of a loader's workers load at a time. While somebody
// waits for a batch all do, since the cores are idle; otherwise only as many
// as the loads of late have needed. It is pure: times are arguments.
//
// (A lower priority of the system's, nice, was tried for the workers and made
// things worse: beside an engine that has all cores, or another program, a nice
// worker does not get on, and then the engine waits for seconds.)
type crew struct {
	workers int  // how many there are
	fixed   bool // all of them work, always
	active  int  // may load while nobody waits, at least 1
	busy    int  // are loading now
	waiting bool

	last   time.Time     // batch taken, zero before the first
	worked time.Duration // loading since then, summed over workers
	calm   int           // batches taken in a row without waiting
	load   time.Duration // worked during them
	span   time.Duration // and how long they took
}

const (
	// crewPatience is the share of a step, one over this, that the engine may
	// wait for its input before another worker helps.
	crewPatience = 50
	// crewCalm is how many batches in a row must come without waiting before
	// one worker less is tried.
	crewCalm = 16
)

// newCrew is a crew of so many workers; adaptive: only as many as are needed
// work, else all do.
func newCrew(workers int, adaptive bool) crew {
	c := crew{workers: workers, fixed: !adaptive, active: 1}
	if !adaptive {
		c.active = workers
	}
	return c
}

// limit is how many workers may load at a time.
func (c *crew) limit() int {
	if c.waiting {
		return c.workers
	}
	return c.active
}

// pause forgets the time until the next batch: nobody computes meanwhile.
func (c *crew) pause() { c.last = time.Time{} }

// taken learns from a batch that was waited for so long.
func (c *crew) taken(now time.Time, wait time.Duration) {
	span, worked, first := now.Sub(c.last), c.worked, c.last.IsZero()
	c.last, c.worked = now, 0
	if first || c.fixed {
		return
	}
	if wait > span/crewPatience {
		c.active = min(c.active+1, c.workers)
		c.calm, c.load, c.span = 0, 0, 0
		return
	}
	c.calm, c.load, c.span = c.calm+1, c.load+worked, c.span+span
	if c.calm < crewCalm {
		return
	}
	// With one less, the load must still fit, with a fifth to spare.
	if c.load*5 < c.span*time.Duration(c.active-1)*4 {
		c.active--
	}
	c.calm, c.load, c.span = 0, 0, 0
}
