package main

import (
	"fmt"
	"strconv"
	"strings"

	"mochi/model/engine"
)

// devices is --device of mochi train: a GPU for each local replica. It
// implements flag.Value.
type devices []int

func (d *devices) String() string {
	if d == nil {
		return ""
	}
	var list []string
	for _, n := range *d {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}

func (d *devices) Set(text string) error {
	var list devices
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 0 {
			return fmt.Errorf("%q is no GPU number; write 2, or 0,1", part)
		}
		list = append(list, n)
	}
	*d = list
	return nil
}

// of is replica i's: as asked, or GPU i.
func (d devices) of(i int) int {
	if len(d) > 0 {
		return d[i]
	}
	return i
}

// refuseDevices is what a CPU engine says to --device.
func refuseDevices(f *faults, info engine.Info) {
	if info.Name != "" && info.Name != "cuda" {
		f.add("device", "chooses a GPU, and engine %s computes on the CPU (%s); leave it out, or give --engine cuda", info.Name, info.Device)
	}
}

// checkEngines is checkEngine for the engine of each local replica. Only where
// there are devices do they differ: of a CPU engine one is started.
func checkEngines(f *faults, name string, cfg engine.Config, replicas int, on devices) []engine.Info {
	infos := make([]engine.Info, replicas)
	if len(on) > 0 && len(on) != replicas {
		f.add("device", "names %s for %s; name one for each", count(len(on), "GPU"), count(replicas, "replica"))
		return infos
	}
	for i := range infos {
		before := len(f.list)
		cfg.Device = on.of(i)
		infos[i] = checkEngine(f, name, cfg)
		if len(f.list) > before {
			if i > 0 && len(on) == 0 { // the first has its GPU
				f.list[before].Problem += fmt.Sprintf("; %d replicas take GPU 0 to %d: start fewer, or let some share one with --device, as in 0,0,1", replicas, replicas-1)
			}
			return infos
		}
		if infos[i].Name != "cuda" {
			for j := range infos {
				infos[j] = infos[i]
			}
			break
		}
	}
	if len(on) > 0 {
		refuseDevices(f, infos[0])
	}
	return infos
}
