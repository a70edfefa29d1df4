package natsring

import (
	"errors"
	"fmt"
	"net"
	"time"

	"mochi/allreduce/natsserver"
)

// writeDeadline is how long a successor that does not read may hold up its own
// link: longer than the coordinator takes to give up a replica that is silent (5 s).
// A pause that everybody else would forgive must not cost the round.
const writeDeadline = 15 * time.Second

// StartServer starts a server for ring traffic at HOST:PORT (port 0: any free
// one): no JetStream, no authentication, no log.
func StartServer(listen string) (*natsserver.Server, error) {
	return startServer(listen, func(*natsserver.Options) {})
}

// startServer starts one that guard has changed the options of.
func startServer(listen string, guard func(*natsserver.Options)) (*natsserver.Server, error) {
	o := natsserver.Options{Listen: listen, WriteDeadline: writeDeadline}
	guard(&o)
	s, err := natsserver.Start(o)
	if failed := (*net.OpError)(nil); errors.As(err, &failed) {
		return nil, fmt.Errorf("ring server: %w; choose another address or port 0", err)
	}
	if err != nil {
		return nil, fmt.Errorf("ring server: %w", err)
	}
	return s, nil
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
