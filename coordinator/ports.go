package coordinator

import (
	"context"
	"errors"
	"io"
	"time"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
)

// ErrFenced is wrapped by a Log or a Lease when another coordinator leads the
// job: this one must stop deciding.
var ErrFenced = errors.New("another coordinator leads this job")

// ErrDiskFull is wrapped by a Log that does not write because there is too little
// room: it can be tried again when there is.
var ErrDiskFull = errors.New("the disk is full")

// MaxNote is how long a note of a Log may be, bytes.
const MaxNote = 256 << 10

// Bus carries messages between the coordinator and its replicas
// (package natsbus implements it).
type Bus interface {
	// Serve starts to receive. wants says whether a replica may send the state after
	// a step (nil, protocol.ErrNotYet, or why not), save reads what it sends to its
	// end, open finds a stored checkpoint; all are called from goroutines of the bus.
	// An upload that is not wanted takes no other's place.
	Serve(
		status func() protocol.Status,
		wants func(from string, step int64) error,
		save func(ctx context.Context, from string, step int64, r io.Reader) error,
		open func(name string) (io.ReadSeekCloser, error),
	) error
	// Send delivers to one replica, in order. It does not wait. What m points to
	// is not changed afterwards, and may be sent to others.
	Send(to string, m protocol.Message) error
	// Messages are those of the replicas, in order for each.
	Messages() <-chan protocol.Message
	// Lost delivers names of clients that disconnected: replica ids, and
	// others, which are ignored.
	Lost() <-chan string
	// Flush waits until what was sent has left.
	Flush(ctx context.Context) error
}

// Log is the durable log of commits and what else must survive (package commitlog
// implements it, and package jetstream). What writes returns when it is durable, after
// ErrFenced never, and after any other error it may be called again: until it succeeds
// nothing has happened.
type Log interface {
	// Last is the last commit; false when there is none.
	Last(ctx context.Context) (protocol.Commit, bool, error)
	// After returns the commits of later steps that are here, ascending.
	After(ctx context.Context, step int64) ([]protocol.Commit, error)
	// Append takes the next commit; ErrFenced: somebody else appended.
	Append(ctx context.Context, c protocol.Commit) error
	// Adopt puts commits in place of all of these steps and later ones. They follow
	// those before them, or are a history without its beginning, which then is all
	// that is here.
	Adopt(ctx context.Context, commits []protocol.Commit) error
	// Forget lets go of commits up to a step, or of some of them, or of none: stored
	// checkpoints cover them. The last 1,000 stay.
	Forget(ctx context.Context, step int64) error
	// Lead begins a term: its number is above all earlier ones, and above that given.
	Lead(ctx context.Context, above uint64) (uint64, error)

	Data(ctx context.Context) (protocol.Data, error) // Kind "": nothing saved
	SaveData(ctx context.Context, d protocol.Data) error
	Round(ctx context.Context) (int64, error) // 0: nothing saved
	SaveRound(ctx context.Context, round int64) error
	// Note is what SaveNote last saved under a name, "" when nothing. There are few
	// names, each of one writer, and a text is at most MaxNote long.
	Note(ctx context.Context, name string) (string, error)
	SaveNote(ctx context.Context, name, text string) error
}

// Lease makes one coordinator the leader of a job.
type Lease interface {
	Acquire(ctx context.Context) error // waits until it is free
	Renew(ctx context.Context) error   // takes it again when it expired and is free; ErrFenced: another holds it
	Release(ctx context.Context) error
	TTL() time.Duration
}

// Checkpoints keeps the run's checkpoint files.
type Checkpoints interface {
	// Latest is the newest valid checkpoint; false when there is none.
	Latest() (Checkpoint, bool, error)
	// Save stores the state after a step, read from r to its end, and returns
	// its name. Before anybody can find it, it is compared with what voted says of
	// that step (which waits until it is known), and refused when it is another
	// state. When Save fails, what was there before stays valid.
	Save(ctx context.Context, step int64, r io.Reader, voted func(ctx context.Context) (Voted, error)) (name string, err error)
	// Open reads a checkpoint by name.
	Open(name string) (io.ReadSeekCloser, error)
}

// Observer is told what happens, from the server's goroutine: it must not
// block for long.
type Observer interface {
	// Committed is called for every committed step in order, once its members
	// have applied it (or the round broke before all had). See CommitRecord.
	Committed(r CommitRecord)
	// Event is called for everything else.
	Event(e event.Event)
}
