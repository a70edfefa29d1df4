package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"mochi/cmd/mochi/run"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
	"mochi/coordinator/quorum"
)

// peers is the log of a group whose coordinators talk to each other (--standby). The one
// that leads has a message server of its own, which replicas join.
type peers struct {
	*quorum.Node
	g *group
}

// amongPeers joins the others.
func (g *group) amongPeers() (groupLog, error) {
	if err := g.notNATS(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", g.peers)
	if err != nil {
		return nil, fmt.Errorf("listen for the other coordinators: %w; stop what is using the port, or choose another in --standby: NAME=HOST:PORT/PORT", err)
	}
	var secured *tls.Config
	if g.guard != nil {
		server, client, err := g.guard.Between()
		if err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		listener, secured = tls.NewListener(listener, server), client
	}
	node, err := quorum.Start(quorum.Options{
		TLS: secured, Job: g.name, Name: g.self.Name, Members: g.members, Dir: run.Group(g.state), Listener: listener, Follow: g, Files: []string{run.LogFile, run.SamplesFile},
		Room: run.RoomUnder(g.state), Log: g.log,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &peers{node, g}, nil
}

func (p *peers) Lead(ctx context.Context) (leadership, error) {
	l, err := p.Node.Lead(ctx)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (p *peers) Other() (string, bool) {
	m, known := p.Leader()
	return m.Name, known && m.Name != p.g.self.Name
}

func (p *peers) Link(ctx context.Context, to string) (*natsbus.Replica, error) {
	for _, m := range p.g.members {
		if m.Name != to {
			continue
		}
		o := natsbus.Options{Job: p.g.name, ID: newID("standby-" + p.g.self.Name), URL: "nats://" + m.Join, Log: p.g.quiet()}
		if p.g.guard != nil {
			o.ID, o.Access = p.g.guard.ID("standby-"+p.g.self.Name), p.g.guard.Peer()
		}
		return natsbus.ConnectReplica(ctx, o)
	}
	return nil, fmt.Errorf("%q is no coordinator of the group", to)
}

func (p *peers) Serve(ctx context.Context) (*natsbus.Coordinator, *natsbus.Server, error) {
	server, err := natsbus.StartServer(p.g.server())
	if err != nil {
		return nil, nil, err
	}
	bus, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: p.g.name, Server: server, Log: p.g.quiet()})
	if err != nil {
		server.Shutdown()
		return nil, nil, err
	}
	return bus, server, nil
}

func (p *peers) Logged() (string, int64) {
	s := p.Settings()
	return s.Config, s.Step
}

func (p *peers) Missing() (missing []string) {
	for _, m := range p.g.members {
		if _, ok := p.g.heard.of(m.Name); !ok && m.Name != p.g.self.Name {
			missing = append(missing, m.Name)
		}
	}
	return missing
}

func (p *peers) Behind() bool {
	s := p.Status()
	var said uint64
	for _, m := range s.Members {
		if m.Name == p.g.self.Name {
			said = m.Applied
		}
	}
	for _, m := range s.Members {
		h, ok := p.g.heard.of(m.Name)
		if m.Name != p.g.self.Name && ok && h.here() && m.Applied < said {
			return true
		}
	}
	return false
}

// State is how the group stands, as this coordinator sees it.
func (p *peers) State() *protocol.GroupState {
	s := p.Status()
	state := &protocol.GroupState{Leader: s.Leader, Trouble: s.Trouble}
	if !s.Since.IsZero() {
		state.Since = s.Since.UTC().Format(time.RFC3339)
	}
	if !s.Majority {
		state.Trouble = strings.TrimPrefix(state.Trouble+"; fewer coordinators than a majority are heard: no commit is possible", "; ")
	}
	var most uint64
	for _, m := range s.Members {
		most = max(most, m.Entries)
	}
	for _, m := range s.Members {
		state.Members = append(state.Members, p.memberState(m, most))
	}
	return state
}

func (p *peers) memberState(m quorum.MemberStatus, most uint64) protocol.MemberState {
	st := protocol.MemberState{
		Name: m.Name, Address: m.Join, State: "standby", Step: m.Step, Behind: int64(most - m.Entries), Checkpoint: -1, Trouble: m.Trouble,
	}
	if !m.Heard.IsZero() {
		st.Heard = m.Heard.UTC().Format(time.RFC3339)
	}
	switch {
	case m.Leads:
		st.State = "leader"
	case m.Error != "":
		st.State = "away"
		st.Trouble = strings.TrimPrefix(st.Trouble+"; "+m.Error, "; ")
	}
	if m.Name == p.g.self.Name {
		st.Checkpoint = p.g.job.Store.Step()
	} else if h, ok := p.g.heard.of(m.Name); ok {
		st.Checkpoint = h.Checkpoint
		if h.Troubled != "" {
			st.Trouble = strings.TrimPrefix(st.Trouble+"; "+h.Troubled, "; ")
		}
	}
	return st
}

// addresses are where replicas find whoever leads, if that is elsewhere each time.
func (g *group) addresses() []string {
	var all []string
	for _, m := range g.members {
		all = append(all, m.Join)
	}
	return all
}

// Strangers answers where replicas would join if this coordinator led: a line that
// is not NATS's, so that they try the others at once, with how the group stands for
// mochi status.
func (p *peers) Strangers(ctx context.Context) {
	for ctx.Err() == nil {
		l, err := net.Listen("tcp", p.g.listen)
		if err == nil && p.g.guard != nil {
			l = tls.NewListener(l, p.g.guard.Server(identity.Join, identity.Read, identity.Coordinator))
		}
		if err == nil {
			stop := context.AfterFunc(ctx, func() { l.Close() })
			err = answerEach(l, func(c net.Conn) { p.tell(ctx, c) })
			stop()
			l.Close()
		}
		if ctx.Err() == nil {
			p.g.log.Debug("strangers are not answered", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// strangersAtOnce is how many are answered at a time; the others are closed, and come again.
const strangersAtOnce = 64

// answerEach has tell answer each who connects, beside the others: one who says nothing holds
// up nobody. tell closes the connection.
func answerEach(l net.Listener, tell func(net.Conn)) error {
	var owned sync.WaitGroup
	defer owned.Wait()
	free := make(chan struct{}, strangersAtOnce)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case free <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		owned.Go(func() {
			defer func() { <-free }()
			tell(c)
		})
	}
}

// tell says on one connection how the group stands.
func (p *peers) tell(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	state, err := json.Marshal(p.State())
	if err == nil && ctx.Err() == nil {
		err = c.SetDeadline(time.Now().Add(time.Second))
	}
	if err == nil {
		_, err = fmt.Fprintf(c, "%s%s\r\n", natsbus.StandbyLine, state)
	}
	if err = errors.Join(err, c.Close()); err != nil {
		p.g.log.Debug("a stranger was not answered", "err", err)
	}
}
