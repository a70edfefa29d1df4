package allreduce

// Identity is a rank's place in one round of one job. Frames of any other
// round or job are dropped on arrival.
type Identity struct {
	Job   string
	Round int64
	Rank  int // 0 ≤ Rank < World
	World int // P
}

// Successor is the rank that this one sends data to.
func (id Identity) Successor() int { return (id.Rank + 1) % id.World }

// Predecessor is the rank that this one receives data from.
func (id Identity) Predecessor() int { return (id.Rank + id.World - 1) % id.World }

// Direction is one way around the ring.
type Direction int

// The directions.
const (
	Forward  Direction = iota // to the successor: data
	Backward                  // to the predecessor: credits and acknowledgements
)

// Handlers receive what arrives. Frames from one neighbour arrive in the order
// they were sent, one call at a time; calls for the two neighbours may overlap.
// A handler does not block. header is HeaderLen bytes and valid during the
// call only; payload belongs to the receiver from then on.
type Handlers struct {
	FromPredecessor func(header, payload []byte)
	FromSuccessor   func(header, payload []byte)
	// Down reports that the link to a neighbour is known to be gone, so that
	// nobody waits for a deadline. It may be called more than once.
	Down func(rank int, err error)
}

// Transport is one rank's links to its two neighbours in one round. It
// delivers in order or not at all: it may lose frames, also without noticing.
// Send may be called concurrently.
type Transport interface {
	Identity() Identity
	// Start begins delivery. It is called once, before the first Send.
	Start(Handlers) error
	// Send hands over one frame; header and payload have been copied when it
	// returns. An error means that the link is gone.
	Send(d Direction, header, payload []byte) error
	// Close ends delivery: no handler runs after it returns. It may be called
	// more than once, and without Start.
	Close() error
}

// Filler is a Transport that can take the payload of a frame for the successor where the
// frame will leave from, so that it is copied once.
type Filler interface {
	Transport
	// Room is where the payload of the next such frame may be put, n bytes; nil: there
	// is none now, and the frame goes by Send. Only one goroutine calls Room and SendFilled.
	Room(n int) []byte
	// SendFilled sends what was put there, with its header. Errors as Send's.
	SendFilled(header []byte) error
}

// Recycler is a Transport that uses payloads again when they are given back. Whoever
// keeps one does no harm.
type Recycler interface {
	Transport
	// Recycle gives back a payload that a handler got. Any goroutine may call it.
	Recycle(payload []byte)
}

// Hurrier is a Transport whose Send may have to wait for a neighbour that takes nothing.
type Hurrier interface {
	Transport
	// Hurry says that the round has failed: no Send takes longer than about a second.
	Hurry()
}

// Solo is the transport of a world of one rank, which never sends anything.
func Solo(job string, round int64) Transport {
	return solo{Identity{Job: job, Round: round, World: 1}}
}

type solo struct{ id Identity }

func (s solo) Identity() Identity                   { return s.id }
func (s solo) Start(Handlers) error                 { return nil }
func (s solo) Send(Direction, []byte, []byte) error { return nil }
func (s solo) Close() error                         { return nil }
