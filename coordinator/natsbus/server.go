package natsbus

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/identity"
)

// ServerOptions configures an embedded NATS server. The zero value is a
// server for this process only, without storage.
type ServerOptions struct {
	Name     string       // shown to clients; default "mochi"
	Listen   string       // host:port (port 0: a free one); "" = in-process connections only
	StoreDir string       // where JetStream keeps its streams; "" = no JetStream
	Log      *slog.Logger // default: discard. The server's notices are logged at debug

	// Authority, when it is set, says who may connect over the network, and what of
	// the job they may do. nil: everybody, everything.
	Authority *identity.Authority
	Job       string // with Authority
}

// Server is an embedded NATS server. It knows which clients disconnect (see
// ConnectCoordinator). Shut it down after every connection to it is closed.
type Server = natsserver.Server

// startTimeout bounds the start of an embedded server; recovering streams
// from a disk is the long part.
const startTimeout = 20 * time.Second

// pingEvery is how often the server asks a silent client whether it is there, and
// writeDeadline how long one that does not read may hold up its connection: longer
// than it takes to give up a replica for its silence (5 s), which is not decided
// here.
const (
	pingEvery     = 2 * time.Second
	writeDeadline = 15 * time.Second
)

// StartServer starts an embedded server and returns once it accepts
// connections. A port in use or a state directory in use is an error that
// says so.
func StartServer(o ServerOptions) (*Server, error) {
	if o.Name == "" {
		o.Name = "mochi"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	opts := natsserver.Options{
		Name: o.Name, Listen: o.Listen, StoreDir: o.StoreDir, Monitor: true, StartTimeout: startTimeout, Log: o.Log,
		PingInterval: pingEvery, WriteDeadline: writeDeadline,
	}
	if o.Authority != nil {
		opts.TLS = o.Authority.Server(identity.Join, identity.Read, identity.Coordinator)
		opts.Admit = admission(o.Job, o.Authority)
		opts.Clients, opts.Subscriptions = maxClients, maxSubscriptions
	}
	s, err := natsserver.Start(opts)
	switch {
	case errors.Is(err, natsserver.ErrLocked):
		return nil, fmt.Errorf("the state directory %s is in use by another coordinator: stop it or choose another directory", o.StoreDir)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; stop what is using the port or choose another with --listen", err)
	case err != nil:
		return nil, err
	}
	return s, nil
}
