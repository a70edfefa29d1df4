// Package follow is what the log of a group of coordinators tells each of them: the lines
// of its files, the newest checkpoint, and how the job ended. Packages quorum and
// jetstream are such logs; who leads is told nothing more than those that stand by.
package follow

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
	// Checkpoint is the step of the newest checkpoint that is here, and how much has
	// arrived so far of those that are fetched. It is called from other goroutines.
	Checkpoint() (step, arrived int64)
	// Over tells that the job has ended. Nothing comes after it, unless all members are
	// started again: then the job goes on, and Over may be told of the end before.
	Over(o Outcome)
}
