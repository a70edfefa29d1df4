package allreduce

import (
	"errors"
	"fmt"
)

// What can happen to a peer; a PeerError wraps one of them, or a transport's
// own error.
var (
	// ErrTimeout: nothing was heard from the peer for Config.Timeout (or it
	// did not answer the probe within Config.ConnectTimeout).
	ErrTimeout = errors.New("no sign of life")
	// ErrLost: frames of the peer did not arrive.
	ErrLost = errors.New("frames were lost")
	// ErrDown: the link to the peer was closed from the other side.
	ErrDown = errors.New("link down")
	// ErrMismatch: the peer is in another collective, or has another length:
	// a bug or another configuration.
	ErrMismatch = errors.New("peer is in another collective")
	// ErrAborted: the peer gave up for a reason of its own and said so; it is
	// alive.
	ErrAborted = errors.New("peer gave up")
)

// ErrClosed says that the Group was closed.
var ErrClosed = errors.New("allreduce: group is closed")

// PeerError says which rank a round failed on. Every rank of the round gets
// one, and all name the same rank unless two failed at once.
type PeerError struct {
	Rank   int    // the suspect
	Origin int    // the rank that found it: this one, or the one that told it
	Round  int64  //
	Op     string // what was going on: "connect", "all-reduce sum step 7 bucket 2"
	Err    error  // wraps one of the Err values above or the transport's error
}

// Error names the rank, the round, the cause and what to do.
func (e *PeerError) Error() string {
	return fmt.Sprintf("%s: rank %d in round %d: %v (%s)", e.Op, e.Rank, e.Round, e.Err, e.hint())
}

// Unwrap is the cause.
func (e *PeerError) Unwrap() error { return e.Err }

func (e *PeerError) hint() string {
	switch {
	case errors.Is(e.Err, ErrTimeout):
		return "check that the replica runs and that its port can be reached"
	case errors.Is(e.Err, ErrLost):
		return "the network or an overloaded server dropped data; a new round starts clean"
	case errors.Is(e.Err, ErrDown):
		return "the replica ended or its host is gone; a round without it can go on"
	case errors.Is(e.Err, ErrMismatch):
		return "replicas must run the same version and configuration"
	case errors.Is(e.Err, ErrAborted):
		return "see that replica's own log"
	}
	return "a new round can try again"
}
