package natsserver

import (
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS counts whoever has connected among its clients, though they have said nothing yet,
// and gives them handshakeLimit to do so: a few thousand connections that stay silent would
// keep everybody else out. So there is room for them beside the clients, and what is above
// these limits is closed, the oldest first: a client that is one says who it is in a few
// milliseconds.
const (
	strangersOf  = 64       // connections of one address that have not said who they are
	strangersAll = 1024     // and of all addresses
	strangerRoom = 16 << 10 // beside the clients, for what comes until it is looked at again
	lookEvery    = 100 * time.Millisecond
)

// bounds keeps the connections of a server within its limits, until done is closed.
type bounds struct {
	s       *server.Server
	clients int // that may be in; 0: no limit
	in      int // that were when it was looked at last
}

func (b *bounds) run(done <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		n := b.s.NumClients()
		if b.in = min(b.in, n); n > b.in+strangersOf || b.clients > 0 && n > b.clients {
			b.look()
		}
	}
}

// look closes what is above the limits.
func (b *bounds) look() {
	all, err := b.s.Connz(&server.ConnzOptions{Sort: server.ByStart, Limit: b.clients + 2*strangerRoom})
	if err != nil {
		return // it is shut down
	}
	conns := all.Conns
	slices.Reverse(conns) // the newest first
	of, strangers, in := map[string]int{}, 0, 0
	for _, c := range conns {
		if c.IP == "" || c.Name != "" { // of this process, or let in
			in++
			continue
		}
		if strangers, of[c.IP] = strangers+1, of[c.IP]+1; strangers > strangersAll || of[c.IP] > strangersOf {
			_ = b.s.DisconnectClientByID(c.Cid) // or it has gone
		}
	}
	for _, c := range conns { // the newest of those inside
		if b.clients == 0 || in <= b.clients {
			break
		}
		if c.IP != "" && c.Name != "" {
			_ = b.s.DisconnectClientByID(c.Cid)
			in--
		}
	}
	b.in = in
}
