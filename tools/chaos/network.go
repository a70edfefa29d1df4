package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"mochi/tools/chaos/relay"
)

// hub is the node of the coordinator; the others have their replicas' names.
const hub = "coordinator"

// network lies between the nodes of a cluster.
type network interface {
	listen() string                               // HOST:PORT of the coordinator
	join(replica string) string                   // where a replica reaches it
	command(node string, argv ...string) []string // argv as it runs on a node
	between() bool                                // it lies between replicas too
	set(from, to string, w weather) error         // for what one node sends to another, from now on
	close() error
}

// weather is what happens to what one node sends to another. The zero value is a
// good network.
type weather struct {
	cut   bool          // nothing arrives
	rate  int64         // bytes a second; 0: as fast as it goes
	delay time.Duration //
	loss  float64       // 0…1
}

// and is two weathers at once.
func (w weather) and(o weather) weather {
	w.cut = w.cut || o.cut
	w.delay, w.loss = max(w.delay, o.delay), max(w.loss, o.loss)
	if w.rate == 0 || o.rate > 0 && o.rate < w.rate {
		w.rate = o.rate
	}
	return w
}

// path is one direction between two nodes.
type path struct{ from, to string }

// skies are the faults of a network at a moment: several may be on one path.
type skies struct {
	network network

	mu sync.Mutex
	on map[path][]*weather
}

// add makes the weather of paths worse, and returns how to undo that.
func (s *skies) add(paths []path, w weather) (undo func() error, err error) {
	mine := &w
	change := func(do func(list []*weather) []*weather) (err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.on == nil {
			s.on = map[path][]*weather{}
		}
		for _, p := range paths {
			s.on[p] = do(s.on[p])
			var sum weather
			for _, o := range s.on[p] {
				sum = sum.and(*o)
			}
			err = errors.Join(err, s.network.set(p.from, p.to, sum))
		}
		return err
	}
	undo = func() error {
		return change(func(list []*weather) []*weather {
			return slices.DeleteFunc(list, func(o *weather) bool { return o == mine })
		})
	}
	return undo, change(func(list []*weather) []*weather { return append(list, mine) })
}

// relays are a network in user space, without root: TCP between each replica and
// the coordinator. What replicas say to each other does not pass through it.
type relays struct {
	address string
	by      map[string]*relay.Relay

	mu  sync.Mutex
	now map[path]weather
}

// freeAddress is an address of loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// newRelays makes one; seed draws what is lost.
func newRelays(replicas []string, seed uint64) (*relays, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	n := &relays{address: address, by: map[string]*relay.Relay{}, now: map[path]weather{}}
	for i, name := range replicas {
		r, err := relay.Listen("127.0.0.1:0", n.address, seed+uint64(i))
		if err != nil {
			return nil, errors.Join(err, n.close())
		}
		n.by[name] = r
	}
	return n, nil
}

func (n *relays) listen() string                            { return n.address }
func (n *relays) join(replica string) string                { return n.by[replica].Addr() }
func (n *relays) command(_ string, argv ...string) []string { return argv }
func (n *relays) between() bool                             { return false }

func (n *relays) set(from, to string, w weather) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := from
	if from == hub {
		name = to
	}
	r := n.by[name]
	if r == nil || from != hub && to != hub {
		return fmt.Errorf("what %s sends to %s does not pass through a relay", from, to)
	}
	n.now[path{from, to}] = w
	up, down := n.now[path{name, hub}], n.now[path{hub, name}]
	both := up.and(down)
	r.Set(relay.Conditions{
		CutUp: up.cut, CutDown: down.cut,
		Delay: both.delay, Loss: both.loss, BytesPerSecond: both.rate,
	})
	return nil
}

func (n *relays) close() error {
	var err error
	for _, r := range n.by {
		err = errors.Join(err, r.Close())
	}
	return err
}
