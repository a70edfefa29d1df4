// Package quorum lets three or five coordinators be one: a replicated log of commits,
// settings and lines, and a lease that makes one of them the leader. It stands on
// hashicorp/raft, with package wal as raft's log.
//
//	n, err := quorum.Start(quorum.Options{Job: "mochi", Name: "a", Members: members, Dir: "state/group", Follow: files})
//	l, err := n.Lead(ctx)        // waits until this one leads
//	srv := coordinator.New(coordinator.Config{Log: l, …})
//	<-l.Done()                   // another leads from here on
//
// # What is promised
//
// What an entry was acknowledged for is on the disks of a majority, and stays in the
// history whichever members are killed, stopped or cut off, as long as a majority of the
// folders is not lost at once. A leader that is deposed can still ask, and gets
// coordinator.ErrFenced; what it was writing then is in the history once or not at all.
// Two leaders cannot both append: each entry says under which leadership it was made, and
// counts under no other.
//
// All members see the same entries in the same order. So each holds the same commits,
// verified as one history at every step (protocol.Commit.Follows), and its follower is
// told the same lines with the same numbers. A follower that was away or lost lines gets
// them from another one's files.
//
// # Who leads
//
// A leader shows life ten times within Options.Heartbeat. Members that hear nothing for
// one to three of them vote for another (raft draws the time, so that they rarely do so
// at once); a leader that hears no majority for half of one steps down by itself. It
// steps down, too, when its disk does not finish a write within some seconds or has no
// room: raft alone would show life for ever. One that lacks the newest checkpoint hands
// over to a member that holds it: the replicas may have gone home after it was stored.
//
// # Files
//
//	member           who this is, and whether it votes (see membership)
//	votes            raft's term and vote
//	log/             raft's log, a wal
//	reach            how far the log was
//	snapshots/       what the log no longer has: settings, commits, numbers of lines
//
// A file that is damaged, or a log that lost its end, is never taken for a shorter
// history: Start returns a *DamagedError that names the folder. When that is emptied the
// others fill it, and until it holds what they hold it has no vote: what it forgot, others
// may have counted on. What cannot be seen is an old copy of the whole folder.
//
// Connections say which job, group and member they are for, so that mistakes are refused.
// Who may connect at all is the matter of the Listener and of TLS: without them the
// network is trusted.
//
// # Cost
//
// An append is one fsync at the leader and one at each other member, the latter at the
// same time, and one round trip. Memory: the commits that are kept, as JSON (about 1 KB
// each with 8 groups), and 8 MB of recent entries. Disk: the log up to 10,000 entries or
// 64 MB behind the newest of two snapshots.
//
// Sources: Ongaro and Ousterhout 2014, "In search of an understandable consensus
// algorithm"; for members that lost their disk see membership.
package quorum

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"mochi/coordinator/follow"
	"mochi/coordinator/wal"
)

// Member is one coordinator of a group.
type Member struct {
	Name string
	Join string // HOST:PORT where replicas join it when it leads
	Peer string // HOST:PORT where the other coordinators reach it
}

// Checkpoint says which checkpoint the leader has stored.
type Checkpoint = follow.Checkpoint

// Outcome is how a job ended.
type Outcome = follow.Outcome

// Follower is told what is replicated.
type Follower = follow.Follower

// Options of a node.
type Options struct {
	Job       string
	Name      string // which of Members this is
	Members   []Member
	Dir       string        // its files: log, votes, snapshots
	Heartbeat time.Duration // default 1 s; elections and lease follow from it
	Listener  net.Listener  // nil: it listens on the port of its Peer
	TLS       *tls.Config   // how it connects to the others; nil: in the clear
	Follow    Follower
	Files     []string     // whose lines are replicated
	Room      func() error // as of commitlog.Options
	Log       *slog.Logger

	dial  func(ctx context.Context, peer Member) (net.Conn, error)
	wrap  func(c net.Conn, peer string) net.Conn // tests cut connections with it
	files func(folder string) wal.Files          // tests have disks that fail

	snapshotEntries int
}

// DamagedError says that the files of this member are not what was written, or less than
// the others count on. It must not take part with them; once its folder is empty, it is
// filled from the others.
type DamagedError struct {
	Dir  string
	What error
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("this coordinator's part of the replicated log is damaged: %v. Remove the folder %s and start it again: it is filled from the other coordinators", e.What, e.Dir)
}

// Unwrap is what is wrong.
func (e *DamagedError) Unwrap() error { return e.What }

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
