// Package gossip gives membership hints: who seems alive and who seems dead,
// as seen by all members together (SWIM with Lifeguard, by
// hashicorp/memberlist).
//
// A hint is never a decision. The coordinator removes a replica only when its
// connection closed, or when a hint and missing heartbeats agree.
//
// Probes every 200 ms with a timeout of 100 ms: a silent member is suspected
// after about 0.3 s and declared dead after 1.0–1.4 s (memberlist's LAN
// profile takes 6–7 s). Cost: a few UDP packets of some hundred bytes a
// second and member.
//
// Sources: Das, Gupta, Motivala 2002 (SWIM); Dadgar, Phillips, Currey 2017
// (Lifeguard).
package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config describes one member.
type Config struct {
	Name string // unique: the replica's id
	Bind string // IP address to listen on; default 127.0.0.1
	// Advertise is the IP address that others are told. Default: Bind; when that
	// is 0.0.0.0 or ::, a private address of this host.
	Advertise string
	Port      int          // UDP and TCP; 0 = a free one
	Join      []string     // host:port of members known so far; those that do not answer are skipped
	Key       []byte       // 16, 24 or 32 bytes: encrypts the traffic; nil = clear text
	Label     string       // of the job: what members of others say is not listened to
	Log       *slog.Logger // default: discard; memberlist's own lines come at debug
}

// Liveness is what a hint says about a member.
type Liveness string

// The hints. memberlist tells of a suspicion only by resolving it, so Dead is
// the first bad news; it does not tell a death from a leave.
const (
	Alive Liveness = "alive"
	Dead  Liveness = "dead" // it answers nobody, or said goodbye
)

// Hint is one change.
type Hint struct {
	Name  string
	State Liveness
}

// Member takes part in the gossip until Shutdown.
type Member struct {
	list   *memberlist.Memberlist
	events chan Hint
	inner  chan memberlist.NodeEvent
	done   chan struct{}
	owned  sync.WaitGroup
	once   sync.Once
}

// Start listens, joins the members that answer, and begins to probe. That
// none of cfg.Join answers is an error only when there are some.
func Start(cfg Config) (*Member, error) {
	if cfg.Name == "" {
		return nil, errors.New("gossip: the member has no name")
	}
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if net.ParseIP(cfg.Bind) == nil {
		return nil, fmt.Errorf("gossip: bind address %q is not an IP address", cfg.Bind) // memberlist would take all interfaces
	}
	if cfg.Advertise == "" && net.ParseIP(cfg.Bind).Equal(net.IPv6unspecified) {
		var err error
		if cfg.Advertise, err = anyAddress(); err != nil {
			return nil, err
		}
	}
	if cfg.Advertise != "" && net.ParseIP(cfg.Advertise) == nil {
		return nil, fmt.Errorf("gossip: advertised address %q is not an IP address", cfg.Advertise)
	}
	m := &Member{
		events: make(chan Hint, 64),
		inner:  make(chan memberlist.NodeEvent, 64),
		done:   make(chan struct{}),
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.BindAddr, c.BindPort = cfg.Name, cfg.Bind, cfg.Port
	c.AdvertiseAddr, c.AdvertisePort = cfg.Advertise, cfg.Port
	c.ProbeInterval, c.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
	c.GossipInterval, c.SuspicionMult = 100*time.Millisecond, 3
	c.TCPTimeout, c.PushPullInterval = 2*time.Second, 10*time.Second
	c.DeadNodeReclaimTime = time.Second
	c.SecretKey = cfg.Key
	if cfg.Label != "" {
		c.Label = "mochi/" + cfg.Label
	}
	c.LogOutput = nil
	c.Logger = stdlog.New(&debugLines{cfg.Log}, "", 0)
	c.Events = &memberlist.ChannelEventDelegate{Ch: m.inner}
	m.owned.Go(m.translate)
	var err error
	if m.list, err = memberlist.Create(c); err != nil {
		close(m.done)
		m.owned.Wait()
		return nil, fmt.Errorf("gossip: listen on %s: %w", net.JoinHostPort(cfg.Bind, strconv.Itoa(cfg.Port)), err)
	}
	if len(cfg.Join) > 0 {
		if n, err := m.list.Join(cfg.Join); n == 0 {
			m.Shutdown()
			return nil, fmt.Errorf("gossip: none of %s answers: %w", strings.Join(cfg.Join, ", "), err)
		}
	}
	return m, nil
}

// anyAddress is an address of this machine by which others may reach it.
func anyAddress() (string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("gossip: find the addresses of this machine: %w", err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", errors.New("gossip: this machine has no address that others could reach")
}

// translate turns memberlist's events into hints. It always takes them, whether
// anybody reads the hints or not: memberlist blocks otherwise.
func (m *Member) translate() {
	defer close(m.events)
	for {
		select {
		case <-m.done:
			return
		case e := <-m.inner:
			h := Hint{Name: e.Node.Name, State: Alive}
			if e.Event == memberlist.NodeLeave {
				h.State = Dead
			}
			m.deliver(h)
		}
	}
}

// deliver hands a hint over. When nobody reads, the oldest one makes room.
func (m *Member) deliver(h Hint) {
	for {
		select {
		case m.events <- h:
			return
		default:
		}
		select {
		case <-m.events:
		default: // somebody has read meanwhile
		}
	}
}

// Events delivers hints, this member's own arrival included. It is closed by
// Shutdown.
func (m *Member) Events() <-chan Hint { return m.events }

// Addr is where others join.
func (m *Member) Addr() string { return m.list.LocalNode().Address() }

// Join makes more members known.
func (m *Member) Join(addresses []string) error {
	if n, err := m.list.Join(addresses); n == 0 && len(addresses) > 0 {
		return fmt.Errorf("gossip: none of %s answers: %w", strings.Join(addresses, ", "), err)
	}
	return nil
}

// Leave says goodbye; ctx's deadline (at most 2 s) bounds the wait until it
// has spread. Shutdown must still be called.
func (m *Member) Leave(ctx context.Context) error {
	wait := 2 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	if err := m.list.Leave(wait); err != nil {
		return fmt.Errorf("gossip: leave: %w", err)
	}
	return nil
}

// Shutdown stops taking part, without a word. It may be called again.
func (m *Member) Shutdown() {
	m.once.Do(func() {
		_ = m.list.Shutdown() // it cannot fail with the network transport
		close(m.done)
		m.owned.Wait()
	})
}

// debugLines is an io.Writer for memberlist's logger.
type debugLines struct{ log *slog.Logger }

var _ io.Writer = (*debugLines)(nil)

func (d *debugLines) Write(line []byte) (int, error) {
	d.log.Debug("gossip: " + strings.TrimSpace(string(line)))
	return len(line), nil
}
