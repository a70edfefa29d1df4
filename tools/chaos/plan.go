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
	At   time.Duration `json:"at"`           // since the first commit
	For  time.Duration `json:"for"`          // how long it lasts, or until a killed process is started again
	Kind string        `json:"kind"`         // one of kinds
	Who  string        `json:"who"`          // a replica, "coordinator", or "disk"
	To   string        `json:"to,omitempty"` // another replica, of a path between them
}

func (f Fault) String() string {
	who := f.Who
	if f.To != "" {
		who += " to " + f.To
	}
	return fmt.Sprintf("%v %s %s for %v", f.At.Round(time.Millisecond), f.Kind, who, f.For.Round(time.Millisecond))
}

// kind is a kind of fault.
type kind struct {
	name string
	on   string        // replica, ring (from a replica to another), coordinator, disk
	most time.Duration // it lasts; at least a twentieth of that
	what string

	needs means // beside processes
	ends  bool  // a process ends of it
}

// means are what a kind of fault needs of the machine.
type means string

const (
	links  means = "a network between replicas"
	space  means = "a file system that can be filled"
	freeze means = "a file system that can be frozen"
)

var kinds = []kind{
	{name: "kill", on: "replica", most: 5 * time.Second, what: "SIGKILL, started again", ends: true},
	{name: "drain", on: "replica", most: 5 * time.Second, what: "SIGTERM, which must end with 0; started again", ends: true},
	{name: "stop", on: "replica", most: 30 * time.Second, what: "SIGSTOP, then SIGCONT"},
	{name: "cut-up", on: "replica", most: 20 * time.Second, what: "nothing from it reaches the coordinator"},
	{name: "cut-down", on: "replica", most: 20 * time.Second, what: "nothing from the coordinator reaches it"},
	{name: "cut", on: "replica", most: 20 * time.Second, what: "both"},
	{name: "slow", on: "replica", most: 10 * time.Second, what: "64 KiB/s between it and the coordinator"},
	{name: "delay", on: "replica", most: 10 * time.Second, what: "100 ms each way"},
	{name: "loss", on: "replica", most: 10 * time.Second, what: "one packet in twenty is lost"},
	{name: "alone", on: "replica", most: 20 * time.Second, what: "nothing from it reaches anybody, nor the other way", needs: links},
	{name: "ring-cut", on: "ring", most: 20 * time.Second, what: "nothing from it reaches another replica", needs: links},
	{name: "ring-slow", on: "ring", most: 10 * time.Second, what: "1 MiB/s", needs: links},
	{name: "ring-delay", on: "ring", most: 10 * time.Second, what: "100 ms", needs: links},
	{name: "ring-loss", on: "ring", most: 10 * time.Second, what: "one packet in twenty is lost", needs: links},
	{name: "kill-coordinator", on: "coordinator", most: 5 * time.Second, what: "SIGKILL, started again", ends: true},
	{name: "stop-coordinator", on: "coordinator", most: 20 * time.Second, what: "SIGSTOP, then SIGCONT"},
	{name: "disk-full", on: "disk", most: 20 * time.Second, what: "no room under --state", needs: space},
	{name: "disk-frozen", on: "disk", most: 10 * time.Second, what: "writes under --state stand still", needs: freeze},
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
// passed. Nothing happens to a victim before its last fault is over. After two fifths
// of the time the coordinator and the last replica do not end, so that it can be seen
// whether they grow in the second half.
func draw(seed uint64, length, every time.Duration, of []kind, replicas []string) []Fault {
	random := rand.New(rand.NewPCG(seed, 17))
	var plan []Fault
	busy := map[string]time.Duration{}
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() * float64(every))
		k := of[random.IntN(len(of))]
		who, to := k.on, ""
		if who == "replica" || who == "ring" {
			who = replicas[random.IntN(len(replicas))]
		}
		if k.on == "ring" {
			others := slices.DeleteFunc(slices.Clone(replicas), func(name string) bool { return name == who })
			to = others[random.IntN(len(others))]
		}
		long := k.most/20 + time.Duration(random.Int64N(int64(k.most-k.most/20)))
		if at > length {
			break
		}
		if at < busy[who] || at+long > length || k.ends && at+long > length*2/5 && lives(who, replicas) {
			continue
		}
		busy[who] = at + long + rest
		plan = append(plan, Fault{At: at, For: long, Kind: k.name, Who: who, To: to})
	}
	slices.SortStableFunc(plan, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return plan
}

// lives says whether a process is one that does not end any more after two fifths.
func lives(who string, replicas []string) bool {
	return who == hub || who == replicas[len(replicas)-1]
}
