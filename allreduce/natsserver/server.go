// Package natsserver runs a NATS server inside this process. A replica embeds
// one for its ring (package natsring), a coordinator one for its messages and
// its log (coordinator/natsbus). They differ in Options only.
//
// Start returns once the server accepts connections. What the server itself
// would only write to a log is an error here: an address in use, a state
// directory in use (ErrLocked), a store that cannot be opened.
//
// Cost: one listener and a few goroutines; a server that does not listen
// serves this process only, over pipes in memory. Messages are limited to
// NATS's default of 1 MiB.
//
// Source: github.com/nats-io/nats-server, used as a library.
package natsserver

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options configures a server. The zero value serves this process only: no
// address, no storage, no log.
type Options struct {
	Name     string // shown to clients; default: drawn at random
	Listen   string // HOST:PORT (port 0: any free one); "" = in-process connections only
	StoreDir string // where JetStream keeps its streams, synced at every write; "" = no JetStream

	// TLS, when it is set, is how clients must connect before anything is said to
	// them, those of this process aside.
	TLS *tls.Config
	// Admit, when it is set, says who may do what; see Client. Without it everybody
	// may do everything.
	Admit func(Client) (Rights, error)
	// Challenge asks each client something that nobody else is asked, for Admit to look at
	// the answer. A client of NATS answers with its signature of the nonce.
	Challenge bool
	// Clients is how many may be connected at a time, Subscriptions how many each of
	// them may have. Default: NATS's own, 65,536 and no limit.
	Clients, Subscriptions int

	// Monitor adds an account whose clients hear of every client that comes and
	// goes; see Server.Monitor.
	Monitor bool

	// WriteDeadline is how long a client that does not read may hold up the
	// server. Default: NATS's own, 10 s.
	WriteDeadline time.Duration
	// PingInterval is how often a client that is silent is asked whether it is there;
	// it is given up at the third time without an answer. Default: NATS's own, 2
	// minutes.
	PingInterval time.Duration
	// StartTimeout bounds the start; recovering streams from a disk is the long
	// part. Default 10 s.
	StartTimeout time.Duration

	// Log gets the server's notices at debug, its errors as warnings and what
	// ends it as an error. Default: no log.
	Log *slog.Logger
}

// Server is a running server. Shut it down after every connection to it is
// closed.
type Server struct {
	ns       *server.Server
	lock     *os.File // of StoreDir, nil without one
	password string   // of the monitoring account, "" without one
	own      string   // password of this process's clients, "" where nobody needs one
	listens  bool
	done     chan struct{} // closed when it ends; nil where nobody keeps its bounds
	owned    sync.WaitGroup
	shutdown bool
}

// Start starts a server.
//
// Errors: one that wraps syscall.EADDRINUSE when the port is in use, ErrLocked
// when StoreDir is, otherwise what failed, with the address or the directory.
func Start(o Options) (_ *Server, err error) {
	if o.StartTimeout == 0 {
		o.StartTimeout = 10 * time.Second
	}
	s := &Server{listens: o.Listen != ""}
	opts := &server.Options{
		ServerName:      o.Name,
		DontListen:      !s.listens,
		NoLog:           o.Log == nil,
		NoSigs:          true,
		NoSystemAccount: !o.Monitor,
		WriteDeadline:   o.WriteDeadline,
		PingInterval:    o.PingInterval,
		MaxPingsOut:     3,
	}
	if s.listens {
		if opts.Host, opts.Port, err = freeAddress(o.Listen); err != nil {
			return nil, err
		}
	}
	if o.Monitor {
		s.password = rand.Text()
		withAccounts(opts, s.password)
	}
	s.guard(opts, o)
	defer func() {
		if err != nil {
			s.Shutdown()
		}
	}()
	if o.StoreDir != "" {
		if s.lock, err = lockDir(o.StoreDir); err != nil {
			return nil, err
		}
		opts.JetStream, opts.StoreDir, opts.SyncAlways = true, o.StoreDir, true
	}
	if s.ns, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	fatal := make(chan string, 1)
	if o.Log != nil {
		s.ns.SetLogger(&serverLog{log: o.Log, fatal: fatal}, false, false)
	}
	go s.ns.Start()
	if err := s.await(o, fatal); err != nil {
		return s, err
	}
	if s.listens && o.Admit != nil {
		s.done = make(chan struct{})
		s.owned.Go(func() { (&bounds{s: s.ns, clients: o.Clients}).run(s.done) })
	}
	return s, nil
}

// await waits until the server runs or has said why it cannot.
func (s *Server) await(o Options, fatal <-chan string) error {
	ready := make(chan bool, 1)
	go func() { ready <- s.ns.ReadyForConnections(o.StartTimeout) }()
	select {
	case why := <-fatal:
		return fmt.Errorf("start the embedded NATS server: %s", why)
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("the embedded NATS server was not ready after %v (listen %q, state %q)", o.StartTimeout, o.Listen, o.StoreDir)
		}
	}
	if o.StoreDir != "" && !s.ns.JetStreamEnabled() {
		select {
		case why := <-fatal:
			return fmt.Errorf("start JetStream in %s: %s", o.StoreDir, why)
		default:
			return fmt.Errorf("start JetStream in %s: not available", o.StoreDir)
		}
	}
	return nil
}

// Port is the TCP port that the server listens on, 0 when it does not.
func (s *Server) Port() int {
	if addr, ok := s.address(); ok {
		return addr.Port
	}
	return 0
}

// URL is where clients on this machine connect, nats://HOST:PORT; "" when the
// server does not listen. One that listens on all interfaces gives its
// loopback address.
func (s *Server) URL() string {
	addr, ok := s.address()
	if !ok {
		return ""
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

func (s *Server) address() (addr *net.TCPAddr, ok bool) {
	if s.listens {
		addr, ok = s.ns.Addr().(*net.TCPAddr)
	}
	return addr, ok
}

// InProcessConn opens a connection without a socket; it makes Server an
// option of nats.go (nats.InProcessServer).
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Shutdown ends the server after what its clients were sent has left, waits
// for it, and gives the state directory free. It may be called again.
func (s *Server) Shutdown() {
	if s.ns != nil && !s.shutdown {
		s.shutdown = true
		if s.done != nil {
			close(s.done)
			s.owned.Wait()
		}
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	}
	if s.lock != nil {
		s.lock.Close()
		s.lock = nil
	}
}
