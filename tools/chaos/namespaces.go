package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"mochi/tools/chaos/packets"
)

// namespaces are a network of the kernel's: each node has a network namespace of
// its own, and a cable of its own to each other node. Packets are lost and late in
// the cable (package packets), slow by tc's tbf.
type namespaces struct {
	prefix string
	nodes  []string
	cables map[path]*packets.Cable // from the node that is first in nodes

	mu   sync.Mutex
	rate map[path]int64 // as tc has it
}

// Names of namespaces begin with this and the process id of who made them.
const namespacePrefix = "mochi-chaos-"

// mtu is that of a network for such things, so that packets are few.
const mtu = 9000

// newNamespaces makes one; seed draws what is lost. It needs root, iproute2 and
// /dev/net/tun.
func newNamespaces(nodes []string, seed uint64) (*namespaces, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w; it is in the package iproute2", err)
		}
	}
	sweepNamespaces()
	n := &namespaces{
		prefix: fmt.Sprintf("%s%d-", namespacePrefix, os.Getpid()), nodes: nodes,
		cables: map[path]*packets.Cable{}, rate: map[path]int64{},
	}
	if err := n.build(seed); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *namespaces) build(seed uint64) error {
	for _, node := range n.nodes {
		if err := errors.Join(
			command("ip", "netns", "add", n.prefix+node),
			command("ip", "-n", n.prefix+node, "link", "set", "lo", "up"),
			command("ip", "-n", n.prefix+node, "address", "add", n.address(node)+"/32", "dev", "lo"),
		); err != nil {
			return err
		}
	}
	for i, a := range n.nodes {
		for j, b := range n.nodes[:i] {
			if err := n.lay(b, a, seed+uint64(i*len(n.nodes)+j)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lay lays the cable between two nodes.
func (n *namespaces) lay(a, b string, seed uint64) error {
	first, err := packets.Device(n.prefix+a, device(b))
	if err != nil {
		return err
	}
	second, err := packets.Device(n.prefix+b, device(a))
	if err != nil {
		return errors.Join(err, first.Close())
	}
	n.cables[path{a, b}] = packets.Join(first, second, seed)
	for _, p := range []path{{a, b}, {b, a}} {
		if err := errors.Join(
			command("ip", "-n", n.prefix+p.from, "link", "set", "dev", device(p.to), "mtu", strconv.Itoa(mtu), "txqueuelen", "2000", "up"),
			command("ip", "-n", n.prefix+p.from, "route", "add", n.address(p.to)+"/32", "dev", device(p.to), "src", n.address(p.from)),
		); err != nil {
			return err
		}
	}
	return nil
}

// device is the name of a node's end of the cable to another.
func device(to string) string { return "to-" + to[:min(len(to), 11)] }

// address is that of a node, within the namespaces.
func (n *namespaces) address(node string) string {
	for i, name := range n.nodes {
		if name == node {
			return fmt.Sprintf("10.77.0.%d", i+1)
		}
	}
	return ""
}

func (n *namespaces) listen() string     { return n.address(hub) + ":4222" }
func (n *namespaces) join(string) string { return n.listen() }
func (n *namespaces) between() bool      { return true }

func (n *namespaces) command(node string, argv ...string) []string {
	return append([]string{"ip", "netns", "exec", n.prefix + node}, argv...)
}

func (n *namespaces) set(from, to string, w weather) error {
	p := path{from, to}
	cable, back := n.cables[p], false
	if cable == nil {
		cable, back = n.cables[path{to, from}], true
	}
	if cable == nil {
		return fmt.Errorf("there is no cable from %s to %s", from, to)
	}
	cable.Set(back, packets.Weather{Cut: w.cut, Loss: w.loss, Delay: w.delay})
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rate[p] == w.rate {
		return nil
	}
	qdisc := []string{"tc", "-n", n.prefix + from, "qdisc", "replace", "dev", device(to), "root",
		"tbf", "rate", strconv.FormatInt(8*w.rate, 10), "burst", strconv.Itoa(2 * mtu), "latency", "400ms"}
	if w.rate == 0 {
		qdisc = []string{"tc", "-n", n.prefix + from, "qdisc", "del", "dev", device(to), "root"}
	}
	if err := command(qdisc...); err != nil {
		return err
	}
	n.rate[p] = w.rate
	return nil
}

// close takes the network away; its processes must have ended.
func (n *namespaces) close() error {
	var err error
	for _, c := range n.cables {
		err = errors.Join(err, c.Close())
	}
	n.cables = nil
	for _, node := range n.nodes {
		if _, missing := os.Stat(filepath.Join("/run/netns", n.prefix+node)); missing == nil {
			err = errors.Join(err, command("ip", "netns", "delete", n.prefix+node))
		}
	}
	return err
}

// sweepNamespaces takes away what was left by one that was killed.
func sweepNamespaces() {
	left, _ := filepath.Glob(filepath.Join("/run/netns", namespacePrefix+"*")) // the pattern is sound
	for _, path := range left {
		name := filepath.Base(path)
		text, _, _ := strings.Cut(strings.TrimPrefix(name, namespacePrefix), "-")
		if pid, err := strconv.Atoi(text); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = command("ip", "netns", "delete", name) // another may be at it too
		}
	}
}
