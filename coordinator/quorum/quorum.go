// Package quorum lets three or five coordinators be one: a replicated log of commits,
// settings and lines, and a lease that makes one of them the leader. It stands on
// hashicorp/raft.
package quorum

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Member is one coordinator of a group.
type Member struct {
	Name string
	Join string // HOST:PORT where replicas join it when it leads
	Peer string // HOST:PORT where the other coordinators reach it
}

// Checkpoint says which checkpoint the leader has stored.
type Checkpoint struct {
	Name   string `json:"name"`
	Step   int64  `json:"step"`
	Cursor int64  `json:"cursor"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

// Outcome is how a job ended.
type Outcome struct {
	Status int    `json:"status"` // of the process
	Reason string `json:"reason"` // for people
}

// Follower is told what is replicated, in order, on every member, the leader too, from
// one goroutine. It may take its time: the log does not wait for it.
type Follower interface {
	// Held is how many lines of a file are here already. It is asked before the first
	// line of that file comes; those that are held come no more.
	Held(file string) (int64, error)
	// Line is the nth line of a file, counted from 1, without its newline; n is always
	// one more than are held. After an error it comes again, as long as it takes.
	Line(file string, n int64, line []byte) error
	// Sync returns when all lines so far are on the disk.
	Sync() error
	// Read returns lines of a file from the nth on, about so many bytes of them but at
	// least one if there is one: another member lacks them. It is called from other
	// goroutines, also while Line runs.
	Read(file string, n int64, bytes int) ([][]byte, error)
	// Configured tells the configuration that the commits are of, when it is new here.
	Configured(text string)
	// Stored tells the newest checkpoint. One that was told before may come again.
	Stored(c Checkpoint)
	// Over tells that the job has ended. Nothing comes after it.
	Over(o Outcome)
}

// Options of a node.
type Options struct {
	Job       string
	Name      string // which of Members this is
	Members   []Member
	Dir       string        // its files: log, votes, snapshots
	Heartbeat time.Duration // default 1 s; elections and lease follow from it
	Listener  net.Listener  // nil: it listens on the port of its Peer
	Follow    Follower
	Room      func() error // as of commitlog.Options
	Log       *slog.Logger
}

// check says what is wrong with the options.
func (o Options) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if n := len(o.Members); n != 3 && n != 5 {
		fault("a group has 3 or 5 coordinators, not %d", n)
	}
	names, peers, found := map[string]bool{}, map[string]bool{}, false
	for _, m := range o.Members {
		if m.Name == "" || names[m.Name] {
			fault("the name %q of a coordinator is empty or there twice", m.Name)
		}
		if _, _, err := net.SplitHostPort(m.Peer); err != nil || peers[m.Peer] {
			fault("coordinator %s: %q is no HOST:PORT of its own for the other coordinators", m.Name, m.Peer)
		}
		names[m.Name], peers[m.Peer], found = true, true, found || m.Name == o.Name
	}
	if !found {
		fault("%q is none of the group's coordinators", o.Name)
	}
	if o.Job == "" || o.Dir == "" || o.Follow == nil {
		fault("job, folder or follower is missing")
	}
	return errors.Join(faults...)
}
