package main

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/quorum"
)

// memberName is what a coordinator of a group may be called.
var memberName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// membersOf reads --standby: NAME=HOST:PORT[/PEERPORT], with commas between them.
func membersOf(f *cli.Faults, text string) (members []quorum.Member) {
	names, taken := map[string]bool{}, map[string]string{}
	take := func(address, what string) {
		if other, twice := taken[address]; twice {
			f.Add("standby", "%s is %s and %s; every coordinator needs a port for replicas and one for the other coordinators (the next one, or the one after a slash: NAME=HOST:PORT/PEERPORT)", address, other, what)
		}
		taken[address] = what
	}
	for entry := range strings.SplitSeq(text, ",") {
		m, err := memberOf(strings.TrimSpace(entry))
		if err != nil {
			f.Add("standby", "%v", err)
			continue
		}
		if names[m.Name] {
			f.Add("standby", "the name %s is there twice", m.Name)
		}
		names[m.Name] = true
		take(m.Join, "where replicas join "+m.Name)
		take(m.Peer, "where the others reach "+m.Name)
		members = append(members, m)
	}
	switch n := strings.Count(text, ",") + 1; {
	case n == 1:
		f.Add("standby", "names one coordinator; a group has 3, of which one may fail, or 5, of which two may")
	case n%2 == 0:
		f.Add("standby", "names %d coordinators; an even number survives no more failures than the odd one below it, so a group has 3, of which one may fail, or 5, of which two may", n)
	case n > 5:
		f.Add("standby", "names %d coordinators; a group has 3 or 5: every commit goes to all of them", n)
	}
	return members
}

func memberOf(entry string) (m quorum.Member, err error) {
	name, address, ok := strings.Cut(entry, "=")
	if !ok || !memberName.MatchString(name) {
		return m, fmt.Errorf("%q is not of the form NAME=HOST:PORT; a name has letters, digits, '-' and '_'", entry)
	}
	address, peerPort, given := strings.Cut(address, "/")
	join, err := parseEndpoint(address, true)
	if err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	if wildcard(join.Host) {
		return m, fmt.Errorf("%s: %q is no address that others reach; give its host's name or address here, and what to listen on with --listen", name, address)
	}
	peer := join.Port + 1
	if given {
		n, err := strconv.ParseUint(peerPort, 10, 16)
		if err != nil {
			return m, fmt.Errorf("%s: the port for the other coordinators, %q, is not a number from 1 to 65535", name, peerPort)
		}
		peer = int(n)
	}
	if join.Port == 0 || peer == 0 || peer > 65535 {
		return m, fmt.Errorf("%s: ports in %q must be from 1 to 65535, since the others must know them", name, entry)
	}
	return quorum.Member{Name: name, Join: join.String(), Peer: endpoint{join.Host, peer}.String()}, nil
}

// selfOf is which of the members this coordinator is: the one named, or the one whose
// address it listens on.
func selfOf(f *cli.Faults, members []quorum.Member, name, listen string) (self quorum.Member) {
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.Name
	}
	at := slices.IndexFunc(members, func(m quorum.Member) bool { return m.Name == name || name == "" && m.Join == listen })
	switch {
	case at >= 0:
		return members[at]
	case len(members) == 0: // said already
	case name == "":
		f.Add("name", "missing: which of %s this coordinator is (or give --listen the address that --standby has for it)", strings.Join(all, ", "))
	default:
		f.Add("name", "%q is none of those that --standby names: %s", name, strings.Join(all, ", "))
	}
	return self
}

// listens is where a member listens for replicas and for the others: --listen where it
// is given, else its own address; the port for the others on the same host.
func listens(self quorum.Member, listen string, given bool) (replicas, peers string) {
	if !given {
		return self.Join, self.Peer
	}
	host, _, _ := net.SplitHostPort(listen) // its form was checked
	_, port, _ := net.SplitHostPort(self.Peer)
	return listen, net.JoinHostPort(host, port)
}
