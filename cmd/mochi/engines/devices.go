package engines

import (
	"fmt"
	"strconv"
	"strings"

	"mochi/cmd/mochi/cli"
	"mochi/model/engine"
)

// Devices is --device of mochi train: a GPU for each local replica. It
// implements pflag.Value.
type Devices []int

// String is the form of the command line, as in 0,1.
func (d *Devices) String() string {
	if d == nil {
		return ""
	}
	var list []string
	for _, n := range *d {
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ",")
}

// Type implements pflag.Value.
func (d *Devices) Type() string { return "devices" }

// Set reads it.
func (d *Devices) Set(text string) error {
	var list Devices
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

// Of is replica i's: as asked, or GPU i.
func (d Devices) Of(i int) int {
	if len(d) > 0 {
		return d[i]
	}
	return i
}

// RefuseDevices is what a CPU engine says to --device.
func RefuseDevices(f *cli.Faults, info engine.Info) {
	if info.Name != "" && !onGPU(info) {
		f.Add("device", "chooses a GPU, and engine %s computes on the CPU (%s); leave it out, or give --engine cuda", info.Name, info.Device)
	}
}

// CheckAll is Check for the engine of each local replica. Only where there are
// GPUs do they differ: of a CPU engine one is started.
func CheckAll(f *cli.Faults, name string, cfg engine.Config, replicas int, on Devices) []engine.Info {
	infos := make([]engine.Info, replicas)
	if len(on) > 0 && len(on) != replicas {
		f.Add("device", "names %s for %s; name one for each", cli.Count(len(on), "GPU"), cli.Count(replicas, "replica"))
		return infos
	}
	for i := range infos {
		cfg.Device = on.Of(i)
		info, err := probe(name, cfg)
		if err != nil {
			hint := ""
			if i > 0 && len(on) == 0 { // the first has its GPU
				hint = fmt.Sprintf("; %d replicas take GPU 0 to %d: start fewer, or let some share one with --device, as in 0,0,1", replicas, replicas-1)
			}
			refuse(f, err, hint)
			return infos
		}
		infos[i] = info
		if !onGPU(info) {
			for j := range infos {
				infos[j] = info
			}
			break
		}
	}
	if len(on) > 0 {
		RefuseDevices(f, infos[0])
	}
	return infos
}
