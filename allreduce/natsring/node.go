package natsring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/direct"
	"mochi/allreduce/natsserver"
)

// InProcess is an embedded server, wherever it comes from: a natsserver.Server
// or any other nats-server.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Options configures a Node.
type Options struct {
	Job string // part of every subject: letters, digits, '-' and '_'
	ID  string // of the replica; in connection names

	// Listen is HOST:PORT of a server of this replica's own, to be subscribed
	// to by its successor; port 0 is any free one. "" = none: the hub serves
	// the successor.
	Listen string
	// Advertise is the host in URL. Default: Listen's host; required when that
	// is empty or unspecified (0.0.0.0), see AdvertiseHost.
	Advertise string
	// AdvertisePort is the port in URL where somebody between the machines
	// translates ports. Default: the port listened on.
	AdvertisePort int

	// HubServer or HubURL is the server for peers without one of their own.
	HubServer InProcess
	HubURL    string

	// Process, when it is set, is shared by all Nodes of this process: neighbours among
	// them lend each other their vectors. nil: segments travel over NATS.
	Process *Process

	// Wrap is put around connections of the lane direct where there are no Neighbours.
	Wrap direct.Wrap

	// Log gets a line for each link that does not go as the lane says, and one at debug for
	// each other. Default: no log.
	Log *slog.Logger

	// Neighbours, when it is set, is how members know each other: only the successor
	// in a round can connect to this Node, in TLS. nil: everybody, in the clear.
	Neighbours Neighbours

	// DialTimeout is how long to try to reach the predecessor's server.
	// Default 5 s.
	DialTimeout time.Duration
}

// Peer is a member of a round, by rank.
type Peer struct {
	ID  string
	URL string // its Node's URL; "" = served by the hub
}

// Node is one replica's end of all its rings: its server and its connections,
// which last over rounds.
type Node struct {
	o    Options
	own  *natsserver.Server // nil in hub mode
	url  string
	port int // that own listens on

	pool *pool // of payloads

	listening sync.Once
	direct    *direct.Listener // of the lane direct, made when first needed
	noDirect  error            // why there is none

	successor atomic.Pointer[string] // its id, in the latest round
	secret    atomic.Pointer[secret] // of the latest round, nil: it is not plain

	mu        sync.Mutex
	closed    bool
	plain     bool                            // own is for plain rounds
	used      map[[allreduce.KeyLen]byte]bool // keys that rings have had
	endpoints map[string]*endpoint            // by Peer.URL; "" is the hub
	dropped   sync.WaitGroup                  // endpoints and links being closed
}

// NewNode starts the replica's server, if it is to have one.
func NewNode(o Options) (*Node, error) {
	if !natsserver.IsToken(o.Job) {
		return nil, fmt.Errorf("ring: job name %q: letters, digits, '-' and '_' only, at least one", o.Job)
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{o: o, pool: newPool(), endpoints: map[string]*endpoint{}, used: map[[allreduce.KeyLen]byte]bool{}}
	if err := n.listen(); err != nil {
		return nil, err
	}
	o.Process.enter(member{o.Job, o.ID})
	return n, nil
}

// listen starts the Node's own server, if it is to have one.
func (n *Node) listen() error {
	o := n.o
	if o.Listen == "" {
		if o.HubServer == nil && o.HubURL == "" {
			return errors.New("ring: neither an address to listen on nor a hub is given")
		}
		return nil
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("ring: listen address %q: %w; want HOST:PORT", o.Listen, err)
	}
	advertise := o.Advertise
	if advertise == "" {
		advertise = host
	}
	if ip := net.ParseIP(advertise); advertise == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("ring: listening on %q: peers need an address to dial; set the advertised host", o.Listen)
	}
	if n.own, err = startServer(o.Listen, func(o *natsserver.Options) { n.guard(o, false) }); err != nil {
		return err
	}
	n.port = n.own.Port()
	port := o.AdvertisePort
	if port == 0 {
		port = n.port
	}
	n.url = "nats://" + net.JoinHostPort(advertise, strconv.Itoa(port))
	return nil
}

// URL is what the other members must know as this one's Peer.URL: "" when the
// hub serves its successor.
func (n *Node) URL() string { return n.url }

// Ring opens this replica's links in a round: peers are all members by rank,
// rank is this one's, lane is the same for all. It connects to the predecessor's server unless an
// earlier round has, and drops connections that this round does not need. A
// predecessor that cannot be reached within Options.DialTimeout is an
// *allreduce.PeerError. Close the Transport (a Group does) when the round
// ends; the connections stay.
func (n *Node) Ring(ctx context.Context, round int64, rank int, peers []Peer, lane Lane) (allreduce.Transport, error) {
	return n.ring(ctx, round, rank, peers, lane, nil)
}

// ring is Ring, or PlainRing where there is a key.
func (n *Node) ring(ctx context.Context, round int64, rank int, peers []Peer, lane Lane, key []byte) (allreduce.Transport, error) {
	id := allreduce.Identity{Job: n.o.Job, Round: round, Rank: rank, World: len(peers)}
	switch {
	case rank < 0 || rank >= len(peers):
		return nil, fmt.Errorf("ring of round %d: rank %d among %d peers", round, rank, len(peers))
	case peers[rank].URL != n.url:
		return nil, fmt.Errorf("ring of round %d: peers[%d] has URL %q, this replica's is %q", round, rank, peers[rank].URL, n.url)
	case len(peers) == 1:
		return allreduce.Solo(n.o.Job, round), nil
	}
	pred := peers[id.Predecessor()]
	if pred.URL == "" && n.o.HubServer == nil && n.o.HubURL == "" {
		return nil, fmt.Errorf("ring of round %d: rank %d (%s) has no server of its own and no hub is given", round, id.Predecessor(), pred.ID)
	}
	if err := n.enters(id, peers, key); err != nil {
		return nil, err
	}
	n.keepOnly(n.url, pred.URL)
	out, err := n.endpoint(peers[rank])
	if err != nil {
		return nil, err
	}
	in, err := n.endpoint(pred)
	if err != nil {
		return nil, err
	}
	dialCtx, stop := context.WithTimeout(ctx, n.o.DialTimeout)
	defer stop()
	t := newTransport(id, in, out, n.pool)
	t.key = key
	if err := t.dial(dialCtx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &allreduce.PeerError{
			Rank: id.Predecessor(), Origin: id.Rank, Round: round, Op: "connect to " + describe(pred),
			Err: fmt.Errorf("%w: %v", allreduce.ErrDown, err),
		}
	}
	t.choose(n, lane, peers)
	return t, nil
}

func describe(p Peer) string {
	if p.URL == "" {
		return "the hub for " + p.ID
	}
	return p.ID + " at " + p.URL
}

// endpoint finds or makes the connections to one server; a dead one is
// replaced.
func (n *Node) endpoint(p Peer) (*endpoint, error) {
	url := p.URL
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.New("ring: node is closed")
	}
	e := n.endpoints[url]
	if e == nil || e.isDead() || (e.tls != nil || e.answer != nil) && e.peer != p.ID {
		if e != nil {
			e.close()
		}
		dial := url
		if url == "" {
			dial = n.o.HubURL
		}
		e = newEndpoint(dial, n.serverOf(url), "ring "+n.o.ID, n.pool)
		e.shared, e.tls, e.peer = url == "", n.clientOf(p), p.ID
		if n.plain && n.serverOf(url) == nil && url != "" {
			e.answer = answering(&n.secret, p.ID)
		}
		n.endpoints[url] = e
	}
	return e, nil
}

// serverOf is the embedded server behind a URL, nil for one to dial.
func (n *Node) serverOf(url string) InProcess {
	switch {
	case url == "":
		return n.o.HubServer
	case url == n.url:
		return n.own
	}
	return nil
}

// keepOnly closes connections to servers other than the two. The round does
// not wait for it: a host that hangs takes nothing any more, and flushing to
// it would only end by a timeout.
func (n *Node) keepOnly(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for url, e := range n.endpoints {
		if url != a && url != b {
			n.dropped.Go(e.close)
			delete(n.endpoints, url)
		}
	}
}

// Close closes all connections and the server. Transports must have been
// closed; a successor that is still to receive something must have got it
// (Group.Leave).
func (n *Node) Close() {
	n.mu.Lock()
	if !n.closed {
		n.o.Process.leave(member{n.o.Job, n.o.ID})
	}
	n.closed = true
	for url, e := range n.endpoints {
		e.close()
		delete(n.endpoints, url)
	}
	n.mu.Unlock()
	n.listening.Do(func() { n.noDirect = errors.New("ring: node is closed") })
	if n.direct != nil {
		n.direct.Close()
	}
	n.dropped.Wait()
	if n.own != nil {
		n.own.Shutdown()
	}
}
