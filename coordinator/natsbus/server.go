package natsbus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerOptions configures an embedded NATS server. The zero value is a
// server for this process only, without storage.
type ServerOptions struct {
	Name     string       // shown to clients; default "mochi"
	Listen   string       // host:port (port 0: a free one); "" = in-process connections only
	StoreDir string       // where JetStream keeps its streams; "" = no JetStream
	Log      *slog.Logger // default: discard. The server's notices are logged at debug
}

// Server is an embedded NATS server. It knows which clients disconnect (see
// ConnectCoordinator). Shut it down after every connection to it is closed.
type Server struct {
	ns       *server.Server
	lock     *os.File // of StoreDir, nil without one
	monitor  string   // password of the system account
	listens  bool
	shutdown bool
}

const (
	systemAccount = "SYS"
	globalAccount = "$G"
	monitorUser   = "monitor"
	clientUser    = "mochi"
)

// startTimeout bounds the start of an embedded server; recovering streams
// from a disk is the long part.
const startTimeout = 20 * time.Second

// StartServer starts an embedded server and returns once it accepts
// connections. A port in use or a state directory in use is an error that
// says so.
func StartServer(o ServerOptions) (_ *Server, err error) {
	if o.Name == "" {
		o.Name = "mochi"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{monitor: rand.Text()}
	system := server.NewAccount(systemAccount)
	opts := &server.Options{
		ServerName:    o.Name,
		DontListen:    true,
		NoSigs:        true,
		Accounts:      []*server.Account{system},
		SystemAccount: systemAccount,
		Users: []*server.User{
			{Username: monitorUser, Password: s.monitor, Account: system},
			{Username: clientUser, Password: rand.Text()},
		},
		NoAuthUser: clientUser, // whoever gives no name gets the global account
		MaxPayload: 1 << 20,
	}
	if o.Listen != "" {
		if err := s.listen(opts, o.Listen); err != nil {
			return nil, err
		}
	}
	if o.StoreDir != "" {
		if s.lock, err = lockDir(o.StoreDir); err != nil {
			return nil, err
		}
		opts.JetStream, opts.StoreDir, opts.SyncAlways = true, o.StoreDir, true
	}
	defer func() {
		if err != nil {
			s.Shutdown()
		}
	}()
	if s.ns, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	fatal := &serverLog{log: o.Log, fatal: make(chan string, 1)}
	s.ns.SetLogger(fatal, false, false)
	go s.ns.Start()
	return s, s.await(o, fatal.fatal)
}

// listen checks the address and that its port is free: the server itself
// would only log it.
func (s *Server) listen(opts *server.Options, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address %q: %w; give HOST:PORT", address, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("listen address %q: port %q is not a number from 0 to 65535", address, port)
	}
	probe, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: %w; stop what is using the port or choose another with --listen", address, err)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := probe.Close(); err != nil {
		return err
	}
	opts.DontListen, opts.Host, opts.Port = false, host, int(number)
	if number == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s.listens = true
	return nil
}

// await waits until the server runs or has said why it cannot.
func (s *Server) await(o ServerOptions, fatal <-chan string) error {
	ready := make(chan bool, 1)
	go func() { ready <- s.ns.ReadyForConnections(startTimeout) }()
	select {
	case why := <-fatal:
		return fmt.Errorf("start the embedded NATS server: %s", why)
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("the embedded NATS server was not ready after %v (listen %q, state %q)", startTimeout, o.Listen, o.StoreDir)
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

// URL is where clients of other processes connect, "" for an in-process
// server. A server that listens on all interfaces gives its loopback address.
func (s *Server) URL() string {
	if !s.listens {
		return ""
	}
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// InProcessConn opens a connection without a socket; it makes Server an
// option of nats.go (nats.InProcessServer).
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Shutdown stops the server and gives the state directory free. It may be
// called again.
func (s *Server) Shutdown() {
	if s.ns != nil && !s.shutdown {
		s.shutdown = true
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	}
	if s.lock != nil {
		s.lock.Close()
		s.lock = nil
	}
}

// lockDir takes the exclusive use of a state directory for this process; the
// kernel gives it free however the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the state directory %s is in use by another coordinator: stop it or choose another directory", dir)
	}
	return f, nil
}

// serverLog turns the server's log into slog and keeps its first fatal line.
type serverLog struct {
	log   *slog.Logger
	fatal chan string
}

func (l *serverLog) line(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "nats: "+strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l *serverLog) Noticef(format string, v ...any) { l.line(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.line(slog.LevelDebug, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.line(slog.LevelWarn, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  {}
func (l *serverLog) Tracef(format string, v ...any)  {}
func (l *serverLog) Fatalf(format string, v ...any) {
	l.line(slog.LevelError, format, v)
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
