package quorum

import (
	"context"
	"errors"
	"time"

	"mochi/coordinator/protocol"
)

// errNotYet: this package is being built.
var errNotYet = errors.New("coordinator/quorum is being built")

// MaxLine is how many bytes a line may have.
const MaxLine = 4 << 20

// Node is one coordinator's part of a group.
type Node struct{}

// Start takes part in the group. It returns at once; a DamagedError says that the
// files of this member cannot be used and must be emptied.
func Start(o Options) (*Node, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return nil, errNotYet
}

// Lead waits until this node leads, all that was committed before has been applied, and
// Follower has been told of it. An error but ctx's means that this node cannot go on.
func (n *Node) Lead(ctx context.Context) (*Leadership, error) { return nil, errNotYet }

// Leader is who leads, as far as this node knows.
func (n *Node) Leader() (Member, bool) { return Member{}, false }

// Settings are what is replicated besides the commits, as far as it is applied here.
type Settings struct {
	Term   uint64
	Round  int64
	Data   protocol.Data
	Config string
	Step   int64 // of the last commit
}

// Settings returns what is applied here.
func (n *Node) Settings() Settings { return Settings{} }

// Failed is closed when this node cannot go on: Lead says why.
func (n *Node) Failed() <-chan struct{} { return nil }

// Status is how the group stands, as seen from one member.
type Status struct {
	Leader   string    // name, "" when none is known
	Since    time.Time // since when it is so
	Voter    bool      // this one votes; false while a folder that was emptied is filled
	Trouble  string    // what this member is held up by, "" when by nothing
	Members  []MemberStatus
	Majority bool // enough members are heard
}

// MemberStatus is how a member stands, as last heard.
type MemberStatus struct {
	Member
	Leads   bool
	Heard   time.Time // zero: never
	Error   string    // why it is not heard
	Entries uint64    // that it has on its disk
	Applied uint64
	Lines   map[string]int64 // that its files hold
	Step    int64            // of the last commit that it has applied
	Trouble string
}

// Status says how the group stands.
func (n *Node) Status() Status { return Status{} }

// Close leaves the group; it can be started again.
func (n *Node) Close() error { return nil }
