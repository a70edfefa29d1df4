package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is something that is done to a cluster at a moment of its run.
type Fault struct {
	At   time.Duration `json:"at"`   // since the first commit
	For  time.Duration `json:"for"`  // how long it lasts, or until a killed process is started again
	Kind string        `json:"kind"` // one of kinds
	Who  string        `json:"who"`  // a replica, "coordinator", or "disk"
}

func (f Fault) String() string {
	return fmt.Sprintf("%v %s %s for %v", f.At.Round(time.Millisecond), f.Kind, f.Who, f.For.Round(time.Millisecond))
}

// kind is a kind of fault.
type kind struct {
	name string
	on   string        // replica, coordinator, disk
	most time.Duration // it lasts; at least a twentieth of that
	what string
}

var kinds = []kind{
	{"kill", "replica", 5 * time.Second, "SIGKILL, started again"},
	{"drain", "replica", 5 * time.Second, "SIGTERM, which must end with 0; started again"},
	{"stop", "replica", 30 * time.Second, "SIGSTOP, then SIGCONT"},
	{"cut-up", "replica", 20 * time.Second, "nothing from it reaches the coordinator"},
	{"cut-down", "replica", 20 * time.Second, "nothing from the coordinator reaches it"},
	{"cut", "replica", 20 * time.Second, "both"},
	{"slow", "replica", 10 * time.Second, "64 KiB/s between it and the coordinator"},
	{"delay", "replica", 10 * time.Second, "100 ms each way"},
	{"loss", "replica", 10 * time.Second, "one chunk in twenty stalls for 200 ms"},
	{"kill-coordinator", "coordinator", 5 * time.Second, "SIGKILL, started again"},
	{"stop-coordinator", "coordinator", 20 * time.Second, "SIGSTOP, then SIGCONT"},
	{"disk-full", "disk", 20 * time.Second, "no room under --state (root)"},
	{"disk-frozen", "disk", 10 * time.Second, "writes under --state stand still (root)"},
}

// choose returns the kinds with these names, with commas between them; all for
// "all".
func choose(names string) ([]kind, error) {
	if names == "all" {
		return slices.Clone(kinds), nil
	}
	var out []kind
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--faults: no kind %q; there are %s", name, strings.Join(kindNames(), ", "))
		}
		out = append(out, kinds[i])
	}
	return out, nil
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// rest is how long a victim is left alone after a fault, so that it takes part
// again before the next one.
const rest = 5 * time.Second

// draw makes a plan, a function of its arguments alone: faults at random moments,
// every `every` on average, in the order of time, all over before length has
// passed. Nothing happens to a victim before its last fault is over.
func draw(seed uint64, length, every time.Duration, of []kind, replicas []string) []Fault {
	random := rand.New(rand.NewPCG(seed, 17))
	var plan []Fault
	busy := map[string]time.Duration{}
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() * float64(every))
		k := of[random.IntN(len(of))]
		who := k.on
		if who == "replica" {
			who = replicas[random.IntN(len(replicas))]
		}
		long := k.most/20 + time.Duration(random.Int64N(int64(k.most-k.most/20)))
		if at > length {
			break
		}
		if at < busy[who] || at+long > length {
			continue
		}
		busy[who] = at + long + rest
		plan = append(plan, Fault{At: at, For: long, Kind: k.name, Who: who})
	}
	slices.SortStableFunc(plan, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return plan
}
