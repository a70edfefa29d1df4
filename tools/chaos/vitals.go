package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// vital is what a process has at a moment.
type vital struct {
	At time.Time

	// As /proc says.
	KiB, Files, Threads int

	// As it says itself (MOCHI_VITALS).
	Goroutines int
	HeapKiB    int // that its garbage collector found in use
}

// readVital reads what /proc says of a process; ok is false when it is gone.
func readVital(pid int) (v vital, ok bool) {
	v.At = time.Now()
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

// life is one process, from the first reading to the last one.
type life struct {
	name string
	pid  int
	seen []vital
}

// observe reads the vitals of all processes twice a second until ctx is done.
func (c *cluster) observe(ctx context.Context) []*life {
	var lives []*life
	for wait(ctx, 500*time.Millisecond) == nil {
		for _, p := range c.everybody() {
			pid := p.pid()
			v, ok := readVital(pid)
			if !ok {
				continue
			}
			i := slices.IndexFunc(lives, func(l *life) bool { return l.name == p.name && l.pid == pid })
			if i < 0 {
				i, lives = len(lives), append(lives, &life{name: p.name, pid: pid})
			}
			lives[i].seen = append(lives[i].seen, v)
		}
	}
	for _, l := range lives {
		l.seen = append(l.seen, readOwn(c.vitals(l.name), l.pid)...)
	}
	return lives
}

// vitals is where a process says what it has.
func (c *cluster) vitals(name string) string { return filepath.Join(c.folder, name+".vitals.jsonl") }

// readOwn reads what a process said of itself. Lines that are not whole are left out:
// it may have been killed in the middle of one.
func readOwn(path string, pid int) []vital {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []vital
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l struct {
			Time       time.Time `json:"time"`
			PID        int       `json:"pid"`
			Goroutines int       `json:"goroutines"`
			Heap       int       `json:"heap_bytes"`
		}
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.PID == pid {
			list = append(list, vital{At: l.Time, Goroutines: l.Goroutines, HeapKiB: l.Heap >> 10})
		}
	}
	return list
}

// trend is a straight line through the readings of a process: what it begins and
// what it ends with.
type trend struct {
	From float64 `json:"from"`
	To   float64 `json:"to"`
}

// growth is how what a process has changed in the second half of a run.
type growth struct {
	Process string           `json:"process"`
	Minutes float64          `json:"minutes"`
	Trends  map[string]trend `json:"trends"`
}

// measures are what should not grow, and by how much the line may rise: what a leak
// of half an hour passes, and caches that fill do not.
var measures = []struct {
	what  string
	of    func(vital) int // 0: not known
	limit func(from float64) float64
}{
	{"memory_kib", func(v vital) int { return v.KiB }, func(b float64) float64 { return b*1.1 + 16<<10 }},
	{"heap_kib", func(v vital) int { return v.HeapKiB }, func(b float64) float64 { return b*1.1 + 8<<10 }},
	{"goroutines", func(v vital) int { return v.Goroutines }, func(b float64) float64 { return b + 10 }},
	{"files", func(v vital) int { return v.Files }, func(b float64) float64 { return b + 10 }},
	{"threads", func(v vital) int { return v.Threads }, func(b float64) float64 { return b + 10 }},
}

// leastReadings is how many a line goes through at least.
const leastReadings = 20

// grown fits lines through what a process had after a moment, and says what grows.
// ok is false when it did not live from so long before until so long after it: what
// has just begun fills its buffers.
func (l *life) grown(after time.Time, long time.Duration) (g growth, broken []string, ok bool) {
	g = growth{Process: fmt.Sprintf("%s (process %d)", l.name, l.pid), Trends: map[string]trend{}}
	if !slices.ContainsFunc(l.seen, func(v vital) bool { return v.At.Before(after.Add(-long)) }) ||
		!slices.ContainsFunc(l.seen, func(v vital) bool { return v.At.After(after.Add(long)) }) {
		return g, nil, false
	}
	for _, m := range measures {
		var at, value []float64
		for _, v := range l.seen {
			if n := m.of(v); n > 0 && v.At.After(after) {
				at, value = append(at, v.At.Sub(after).Minutes()), append(value, float64(n))
			}
		}
		if len(at) < leastReadings {
			continue
		}
		t := fit(at, value)
		g.Trends[m.what], g.Minutes = t, max(g.Minutes, at[len(at)-1]-at[0])
		if limit := m.limit(t.From); t.To > limit {
			broken = append(broken, fmt.Sprintf("%s grew: %s from %.0f to %.0f in %.1f minutes, %.0f would be allowed", g.Process, m.what, t.From, t.To, g.Minutes, limit))
		}
	}
	g.Minutes = math.Round(g.Minutes*10) / 10
	return g, broken, len(g.Trends) > 0
}

// fit is the line of Theil and Sen, which a few bursts do not move: its slope is the
// median of the slopes between all pairs of readings, of at most some hundreds.
func fit(at, value []float64) trend {
	const most = 300
	stride := len(at)/most + 1
	var slopes, begins []float64
	for i := 0; i < len(at); i += stride {
		for j := i + stride; j < len(at); j += stride {
			if d := at[j] - at[i]; d > 0 {
				slopes = append(slopes, (value[j]-value[i])/d)
			}
		}
	}
	slope := middle(slopes)
	for i := range at {
		begins = append(begins, value[i]-slope*(at[i]-at[0]))
	}
	from := middle(begins)
	return trend{math.Round(from), math.Round(from + slope*(at[len(at)-1]-at[0]))}
}

// middle is the median; it sorts.
func middle(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}
