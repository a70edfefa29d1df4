package natsring

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is an embedded NATS server that serves this replica's successor.
type Server struct {
	ns  *server.Server
	url string
}

// startTimeout is how long an embedded server may take to accept connections.
const startTimeout = 10 * time.Second

// StartServer starts a server on host and port (0: any free one). It carries
// ring traffic only: no JetStream, no authentication, no log.
func StartServer(host string, port int) (*Server, error) {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	// The server itself can only log that it failed to listen.
	probe, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("ring server: listen on %s: %w; choose another address or port 0", address, err)
	}
	if err := probe.Close(); err != nil {
		return nil, fmt.Errorf("ring server: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	ns, err := server.NewServer(&server.Options{
		Host:            host,
		Port:            port,
		NoLog:           true,
		NoSigs:          true,
		NoSystemAccount: true,
		// A successor that does not read holds up its own link only this long.
		WriteDeadline: 2 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("ring server on %s: %w", address, err)
	}
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) {
		ns.Shutdown()
		return nil, fmt.Errorf("ring server: not listening on %s after %v", address, startTimeout)
	}
	tcp, ok := ns.Addr().(*net.TCPAddr)
	if !ok {
		ns.Shutdown()
		return nil, errors.New("ring server: no TCP address")
	}
	return &Server{ns: ns, url: "nats://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port))}, nil
}

// URL is nats://host:port, with the host given to StartServer.
func (s *Server) URL() string { return s.url }

// InProcessConn opens a connection without a socket.
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Close ends the server after what its clients were sent has left, and waits
// for it.
func (s *Server) Close() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

// AdvertiseHost is the address of this machine that a peer sees when this
// machine connects to it: what to advertise when listening on all interfaces.
// toward is HOST:PORT, such as the coordinator's; nothing is sent.
func AdvertiseHost(toward string) (string, error) {
	conn, err := net.Dial("udp", toward)
	if err != nil {
		return "", fmt.Errorf("find the address that faces %s: %w", toward, err)
	}
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, errors.Join(err, conn.Close())
}
