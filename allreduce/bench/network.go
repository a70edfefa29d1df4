package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Limits are those of the links between ranks, each in a network namespace of its own.
type Limits struct {
	Rate  string        // of what a rank sends, in tc's words: 1gbit, 200mbit
	Delay time.Duration // of what it sends, one way; 0: none besides the rate's
}

// ParseLimits reads RATE or RATE,DELAY, such as 1gbit,5ms.
func ParseLimits(text string) (l Limits, err error) {
	rate, delay, more := strings.Cut(text, ",")
	if more {
		if l.Delay, err = time.ParseDuration(delay); err != nil || l.Delay < 0 {
			return l, fmt.Errorf("delay %q: give a duration such as 5ms", delay)
		}
	}
	l.Rate = rate
	if _, err := l.bits(); err != nil {
		return l, err
	}
	return l, nil
}

// bits is the rate, bits a second.
func (l Limits) bits() (int64, error) {
	for unit, factor := range map[string]int64{"gbit": 1e9, "mbit": 1e6} {
		if number, ok := strings.CutSuffix(l.Rate, unit); ok {
			if n, err := strconv.ParseInt(number, 10, 32); err == nil && n > 0 && n <= 1e12/factor {
				return n * factor, nil
			}
		}
	}
	return 0, fmt.Errorf("rate %q: give a whole number of mbit or gbit, such as 1gbit", l.Rate)
}

// Network is a bridge in a namespace of its own, and a namespace with a cable to it for
// each rank.
type Network struct {
	prefix string
	world  int
}

// hub is the namespace of the bridge, where the ranks' parent runs.
const hub = "hub"

// NewNetwork makes one. It needs root and iproute2, and for a delay a kernel with netem.
// Close it after the processes in it have ended.
func NewNetwork(world int, l Limits) (*Network, error) {
	rate, err := l.bits()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w; it is in the package iproute2", err)
		}
	}
	n := &Network{prefix: fmt.Sprintf("mochi-bench-%d-", os.Getpid()), world: world}
	if err := n.build(rate, l.Delay); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) build(rate int64, delay time.Duration) error {
	at := n.prefix + hub
	commands := [][]string{
		{"ip", "netns", "add", at},
		{"ip", "-n", at, "link", "set", "lo", "up"},
		{"ip", "-n", at, "link", "add", "bridge", "type", "bridge"},
		{"ip", "-n", at, "address", "add", n.HubHost() + "/24", "dev", "bridge"},
		{"ip", "-n", at, "link", "set", "bridge", "up"},
	}
	burst := max(rate/8/100, 256<<10) // of 10 ms, or some of the largest packets
	for rank := range n.world {
		here, port := n.prefix+strconv.Itoa(rank), "rank"+strconv.Itoa(rank)
		commands = append(commands,
			[]string{"ip", "netns", "add", here},
			[]string{"ip", "-n", here, "link", "set", "lo", "up"},
			[]string{"ip", "link", "add", "cable", "netns", here, "type", "veth", "peer", "name", port, "netns", at},
			[]string{"ip", "-n", at, "link", "set", port, "master", "bridge", "up"},
			[]string{"ip", "-n", here, "address", "add", n.Host(rank) + "/24", "dev", "cable"},
			[]string{"ip", "-n", here, "link", "set", "cable", "up"},
		)
		parent := "root"
		if delay > 0 {
			commands = append(commands, []string{"tc", "-n", here, "qdisc", "add", "dev", "cable", "root", "handle", "1:",
				"netem", "delay", fmt.Sprintf("%dus", delay.Microseconds()), "limit", "100000"})
			parent = "parent 1:1"
		}
		commands = append(commands, append(append([]string{"tc", "-n", here, "qdisc", "add", "dev", "cable"}, strings.Fields(parent)...),
			"tbf", "rate", fmt.Sprintf("%dbit", rate), "burst", strconv.FormatInt(burst, 10), "latency", "100ms"))
	}
	for _, argv := range commands {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			hint := ""
			if strings.Contains(strings.Join(argv, " "), "netem") {
				hint = "; a delay needs a kernel with netem (module sch_netem)"
			}
			return fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)), hint)
		}
	}
	return nil
}

// Host is the address of a rank, HubHost that of the parent.
func (n *Network) Host(rank int) string { return fmt.Sprintf("10.78.0.%d", rank+1) }

// HubHost is an address that all ranks reach.
func (n *Network) HubHost() string { return "10.78.0.254" }

// In is argv as it runs at a rank, or at the hub where rank is negative.
func (n *Network) In(rank int, argv ...string) []string {
	node := hub
	if rank >= 0 {
		node = strconv.Itoa(rank)
	}
	return append([]string{"ip", "netns", "exec", n.prefix + node}, argv...)
}

// Prefix names the network to a process in it, see Within.
func (n *Network) Prefix() string { return n.prefix }

// Within is the network that another process has made.
func Within(prefix string, world int) *Network { return &Network{prefix: prefix, world: world} }

// Close takes it away.
func (n *Network) Close() error {
	var errs []error
	for rank := -1; rank < n.world; rank++ {
		name := n.In(rank)[3]
		if _, err := os.Stat("/run/netns/" + name); err != nil {
			continue
		}
		if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete the namespace %s: %w: %s", name, err, out))
		}
	}
	return errors.Join(errs...)
}
