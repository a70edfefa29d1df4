package natsserver

import (
	"fmt"
	"net"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
)

// freeAddress splits HOST:PORT for the server's options and checks that the
// port is free: the server itself would only log that it is not.
func freeAddress(address string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: %w; give HOST:PORT", address, err)
	}
	number, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: port %q is not a number from 0 to 65535", address, portText)
	}
	probe, err := net.Listen("tcp", address)
	if err != nil {
		return "", 0, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := probe.Close(); err != nil {
		return "", 0, err
	}
	if number == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(number), nil
}
