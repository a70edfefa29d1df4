package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// vital is what a process has at a moment, as /proc says.
type vital struct{ KiB, Files, Threads int }

// readVital reads that of a process; ok is false when it is gone.
func readVital(pid int) (v vital, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return v, false
	}
	for row := range bytes.Lines(status) {
		f := bytes.Fields(row)
		if len(f) < 2 {
			continue
		}
		switch n, _ := strconv.Atoi(string(f[1])); string(f[0]) {
		case "VmRSS:":
			v.KiB = n
		case "Threads:":
			v.Threads = n
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	v.Files = len(files)
	return v, err == nil && v.KiB > 0
}

// cpu is the processor time that a process has used, its own and the kernel's
// for it; 0 when it is gone.
func cpu(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from field 3 on
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(string(f[11]))
	system, _ := strconv.Atoi(string(f[12]))
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// observe reads the vitals of all processes twice a second until ctx is done:
// by name and process id.
func (c *cluster) observe(ctx context.Context) map[string][]vital {
	seen := map[string][]vital{}
	for wait(ctx, 500*time.Millisecond) == nil {
		for _, p := range c.everybody() {
			if v, ok := readVital(p.pid()); ok {
				name := fmt.Sprintf("%s (process %d)", p.name, p.pid())
				seen[name] = append(seen[name], v)
			}
		}
	}
	return seen
}

// grown says what of a process grows: the median of the last quarter of its life
// beside that of the second one, which leaves its start out. Memory may grow by
// a quarter and 32 MiB, files and threads by 16: what a leak of an hour passes, and
// buffers that a fault has filled do not. Lives of less than 40 readings say
// nothing.
func grown(name string, life []vital) []string {
	if len(life) < 40 {
		return nil
	}
	q := len(life) / 4
	var out []string
	for _, w := range []struct {
		what  string
		of    func(vital) int
		limit func(before int) int
	}{
		{"KiB of memory", func(v vital) int { return v.KiB }, func(b int) int { return b*5/4 + 32<<10 }},
		{"open files", func(v vital) int { return v.Files }, func(b int) int { return b + 16 }},
		{"threads", func(v vital) int { return v.Threads }, func(b int) int { return b + 16 }},
	} {
		before, after := median(life[q:2*q], w.of), median(life[3*q:], w.of)
		if after > w.limit(before) {
			out = append(out, fmt.Sprintf("%s grew from %d to %d %s", name, before, after, w.what))
		}
	}
	return out
}

func median(life []vital, of func(vital) int) int {
	var n []int
	for _, v := range life {
		n = append(n, of(v))
	}
	slices.Sort(n)
	return n[len(n)/2]
}
