package clustertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// trace is what happened, in order, as far as it is kept, and a hash of all of
// it by host: what two hosts do at one instant has no order.
type trace struct {
	keep  int // lines
	lines []line
	hash  map[string]uint64
}

type line struct {
	at   time.Duration
	host string
	what string
	n    int64
}

// note adds to the trace. The lock is held.
func (w *World) note(p *Process, what string, n int64) {
	host := ""
	if p != nil {
		host = p.name
	}
	now := w.now()
	h := w.trace.hash[host]
	w.trace.hash[host] = hashString(h^uint64(now)^uint64(n)<<40, what)
	if len(w.trace.lines) == w.trace.keep {
		if w.trace.keep == 0 {
			return
		}
		w.trace.lines = append(w.trace.lines[:0], w.trace.lines[w.trace.keep/2:]...)
	}
	w.trace.lines = append(w.trace.lines, line{now, host, what, n})
}

// sum is the hash of all that happened.
func (t *trace) sum() uint64 {
	h := uint64(len(t.hash))
	for _, host := range slices.Sorted(maps.Keys(t.hash)) {
		h = hashString(h^t.hash[host], host)
	}
	return h
}

// String is the last lines.
func (t *trace) String() string {
	var b strings.Builder
	for _, l := range t.lines {
		fmt.Fprintf(&b, "%12.6f  %-12s %s", l.at.Seconds(), l.host, l.what)
		if l.n != 0 {
			fmt.Fprintf(&b, " %d", l.n)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
