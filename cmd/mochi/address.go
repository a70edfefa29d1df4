package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"mochi/cmd/mochi/cli"
)

// lookupLimit is how long a name server may take.
const lookupLimit = 10 * time.Second

// endpoint is HOST:PORT of a flag. Host is a name or an IP address without
// brackets, "" where none was given; Port is 0 where none was given or any may
// be taken.
type endpoint struct {
	Host string
	Port int
}

func (e endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// parseEndpoint reads HOST:PORT, with an IPv6 address in brackets. Where the port
// may be missing, it reads HOST too, with brackets or without.
func parseEndpoint(text string, needsPort bool) (endpoint, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil && !needsPort {
		bare := text
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			bare = text[1 : len(text)-1]
		}
		if _, notIP := netip.ParseAddr(bare); bare != "" && (notIP == nil || !strings.ContainsAny(bare, ":[]")) {
			return endpoint{Host: bare}, nil
		}
	}
	switch {
	case err != nil && needsPort:
		return endpoint{}, fmt.Errorf("%q is not of the form HOST:PORT; an IPv6 address stands in brackets, as in [::1]:4222", text)
	case err != nil || host == "" && !needsPort:
		return endpoint{}, fmt.Errorf("%q is not of the form HOST or HOST:PORT; an IPv6 address before a port stands in brackets, as in [::1]:4222", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return endpoint{}, fmt.Errorf("port %q of %q is not a number from 0 to 65535", port, text)
	}
	return endpoint{Host: host, Port: int(n)}, nil
}

// endpointFlag is the endpoint of a flag, the zero one where it is not given.
func endpointFlag(f *cli.Faults, name, text string, needsPort bool) endpoint {
	if text == "" {
		return endpoint{}
	}
	e, err := parseEndpoint(text, needsPort)
	if err != nil {
		f.Add(name, "%v", err)
	}
	return e
}

// places are where a replica listens and where the others find it.
type places struct {
	Ring   endpoint // to listen on
	Told   endpoint // the ring's address for others; port 0: the one listened on
	Gossip endpoint // to listen on: an IP address
	Hinted string   // the IP address of the gossip for others
}

// finder works out places from flags and this machine's addresses.
type finder struct {
	listen, gossip, advertise endpoint // zero: not given

	facing func() (string, error)                                   // the IP address of this machine that faces the coordinator
	lookup func(ctx context.Context, name string) ([]string, error) // IP addresses
	own    func(ip string) bool                                     // whether this machine can listen there
}

// places: what is not given follows from the rest. Others are told the address that
// faces the coordinator, and it is listened on. What is advertised is listened
// on where it is this machine's; where it is not, somebody in between translates.
func (f finder) places(ctx context.Context) (p places, err error) {
	told := f.advertise.Host
	if told == "" && !wildcard(f.listen.Host) {
		told = f.listen.Host
	}
	facing, err := f.facing()
	if err == nil && strings.Contains(facing, "%") {
		err = fmt.Errorf("%s is a link-local address, which means something on this machine only", facing)
	}
	if told == "" {
		if err != nil {
			return p, fmt.Errorf("find the address that faces the coordinator: %w; set --advertise", err)
		}
		told = facing
	} else if err != nil {
		facing = ""
	}
	ip, err := f.resolve(ctx, told, facing)
	if err != nil {
		return p, fmt.Errorf("find the addresses of %q: %w; give --advertise an IP address that other replicas reach", told, err)
	}
	p.Told, p.Hinted = endpoint{told, f.advertise.Port}, ip
	p.Ring = f.listen
	if f.listen == (endpoint{}) {
		p.Ring = endpoint{ip, f.advertise.Port}
		if facing != "" && facing != ip && !f.own(ip) {
			p.Ring.Host = facing
		}
	}
	p.Gossip = f.gossip
	if p.Gossip.Host == "" {
		p.Gossip.Host = p.Ring.Host
	}
	if p.Gossip.Host == "" {
		p.Gossip.Host = "0.0.0.0"
	}
	if p.Gossip.Host, err = f.resolve(ctx, p.Gossip.Host, facing); err != nil {
		return p, fmt.Errorf("find the addresses of %q: %w; give --gossip an IP address of this machine", p.Gossip.Host, err)
	}
	return p, nil
}

// resolve is one IP address of a host: the one that faces the coordinator if it
// is among them, or one of that kind. A name that means loopback here (many
// systems have their own name so) is no address for others, unless the
// coordinator is here too.
func (f finder) resolve(ctx context.Context, host, facing string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	all, err := f.lookup(ctx, host)
	if err != nil {
		return "", err
	}
	toward, _ := netip.ParseAddr(facing)
	for _, like := range []func(netip.Addr) bool{
		func(a netip.Addr) bool { return a == toward },
		func(a netip.Addr) bool { return !a.IsLoopback() && a.Is4() == toward.Is4() },
		func(a netip.Addr) bool { return !a.IsLoopback() },
	} {
		if i := slices.IndexFunc(all, func(text string) bool {
			a, err := netip.ParseAddr(text)
			return err == nil && like(a.Unmap())
		}); i >= 0 {
			return all[i], nil
		}
	}
	if facing != "" {
		return facing, nil
	}
	return all[0], nil
}

// wildcard says whether a host to listen on means all addresses of the machine.
func wildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// isOwn says whether this machine can listen on an IP address.
func isOwn(ip string) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return false
	}
	_ = l.Close() // nothing was sent
	return true
}

// joinLine is how replicas join a coordinator that listens on an address, for people: with
// what it is reached at from other machines, where it listens on all of its addresses. url
// is where it is on its own.
func joinLine(listen, url string, interfaces func() ([]net.Addr, error)) string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || !wildcard(host) {
		return url + " --data …"
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "nats://"))
	if err != nil {
		return url + " --data …"
	}
	all, err := interfaces()
	var others []string
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && (host != "0.0.0.0" || n.IP.To4() != nil) {
			others = append(others, "nats://"+net.JoinHostPort(n.IP.String(), port))
		}
	}
	if err != nil || len(others) == 0 {
		return url + " --data …  (on this machine; from others, with a name or an address of it in place of 127.0.0.1)"
	}
	return fmt.Sprintf("%s --data …  (on this machine %s)", strings.Join(others, " or "), url)
}
