package main

import (
	"log/slog"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/engines"
	"mochi/coordinator/protocol"
)

// standbys is what the coordinator that leads has heard of the others.
type standbys struct {
	mu     sync.Mutex
	name   string // of the one that leads
	config string // of the job, "" until it has begun
	last   map[string]standbyHeard
}

type standbyHeard struct {
	protocol.StandingBy
	at time.Time
}

// awayAfter is how long a coordinator that says nothing counts as one that may come back
// with what it has.
const awayAfter = 10 * time.Minute

func newStandbys() *standbys { return &standbys{last: map[string]standbyHeard{}} }

// begin forgets what was heard in an earlier leadership.
func (s *standbys) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.config = name, ""
	clear(s.last)
}

// agreed sets the configuration of the job.
func (s *standbys) agreed(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = text
}

func (s *standbys) hear(b protocol.StandingBy) protocol.GroupAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[b.Name] = standbyHeard{b, time.Now()}
	return protocol.GroupAnswer{Leader: s.name, Config: s.config, Binary: engines.BuildIdentity()}
}

// otherBuild is an error when a coordinator is of another build than the one that leads:
// if it led next it would send all replicas away.
func otherBuild(leader protocol.GroupAnswer, own string) error {
	if leader.Binary == "" || leader.Binary == own {
		return nil
	}
	return cli.Usagef("%s leads this job with another build of mochi (%s, which its replicas have too; here %s): run the same build on every host; to change it, stop the job, and start all of it with the new one", leader.Leader, leader.Binary, own)
}

// of is what was heard of one, false when nothing was.
func (s *standbys) of(name string) (standbyHeard, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.last[name]
	return h, ok
}

// all are those that were heard in this leadership, by name.
func (s *standbys) all() map[string]standbyHeard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.last)
}

// here says whether it was heard just now.
func (h standbyHeard) here() bool { return time.Since(h.at) < 3*sayEvery }

// covered is the last step that the checkpoints of all cover that were there lately.
func (s *standbys) covered() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := int64(math.MaxInt64)
	for _, h := range s.last {
		if time.Since(h.at) < awayAfter {
			step = min(step, h.Checkpoint)
		}
	}
	return step
}

// withGroup adds the group to the status of the job.
func (g *group) withGroup(s protocol.Status) protocol.Status {
	s.Group = g.node.State()
	return s
}

// yaml is the configuration, as the group's log has it.
func (g *group) yaml() string {
	text, err := g.job.Config.YAML()
	if err != nil {
		panic(err) // it was written to config.yaml
	}
	return string(text)
}

// quiet is the log of connections between coordinators, of which there is little to say.
func (g *group) quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func joinLines(list []string) string { return strings.Join(list, "\n  ") }
