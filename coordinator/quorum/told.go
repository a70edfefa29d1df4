package quorum

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mochi/coordinator"
)

// Line puts a line behind those of a file, on all members. It does not wait; the order
// is that of the calls. A line has 1 to MaxLine bytes, and no newline.
func (l *Leadership) Line(file string, text []byte) {
	if len(text) == 0 || len(text) > MaxLine || bytes.IndexByte(text, '\n') >= 0 {
		l.node.log.Error("a line that cannot be replicated is left out", "file", file, "bytes", len(text))
		return
	}
	l.told.Put(told{line: line{file, bytes.Clone(text)}})
}

// Stored tells the members of a checkpoint, behind the lines so far. It does not wait.
func (l *Leadership) Stored(c Checkpoint) { l.told.Put(told{stored: &c}) }

// run replicates what was told, until the leadership ends.
func (l *Leadership) run() {
	for l.told.Drain(func(queue []told) int {
		n, e := l.batch(queue)
		if !l.replicate(e) {
			return 0
		}
		return n
	}) {
		select {
		case <-l.told.Wake():
		case <-l.done:
			return
		case <-l.halt:
			return
		case <-l.node.ctx.Done():
			return
		}
	}
}

// batch is what goes into the next entry, and how much of the queue that is.
func (l *Leadership) batch(queue []told) (n int, e entry) {
	if c := queue[0].stored; c != nil {
		text, _ := json.Marshal(c) // numbers and strings
		return 1, entry{kind: kindStored, under: l.under, body: text}
	}
	var lines []line
	for size := 0; n < len(queue) && queue[n].stored == nil; n++ {
		if size += len(queue[n].line.text); n > 0 && size > batchLines {
			break
		}
		lines = append(lines, queue[n].line)
	}
	return n, entry{kind: kindLines, under: l.under, body: encodeLines(lines)}
}

// replicate tries until it succeeds; false: the leadership has ended.
func (l *Leadership) replicate(e entry) bool {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		_, err := l.wait(l.node.ctx, l.start(e))
		if err == nil {
			return true
		}
		if errors.Is(err, coordinator.ErrFenced) {
			return false
		}
		l.node.log.Debug("lines are not replicated yet", "err", err)
		select {
		case <-time.After(wait):
		case <-l.done:
			return false
		case <-l.node.ctx.Done():
			return false
		}
	}
}

// Flush returns when all lines so far are on the disks of a majority.
func (l *Leadership) Flush(ctx context.Context) error {
	return l.told.Flush(ctx, l.done, coordinator.ErrFenced)
}

// overLinger is how long Over lets the others hear it.
const overLinger = 3 * time.Second

// Over tells the members how the job ended, behind the lines so far. It returns when a
// majority has it, and those that can be reached have been told, or some seconds later.
func (l *Leadership) Over(ctx context.Context, o Outcome) error {
	if err := l.Flush(ctx); err != nil {
		return fmt.Errorf("end the job for all coordinators: %w", err)
	}
	if err := l.writeOne(ctx, kindOver, o, nil); err != nil {
		return fmt.Errorf("end the job for all coordinators: %w", err)
	}
	_, _, last := l.node.machine.grown()
	ctx, cancel := context.WithTimeout(ctx, overLinger)
	defer cancel()
	for ctx.Err() == nil {
		behind := false
		for _, a := range l.node.asked.all(ctx) {
			behind = behind || a.Applied < last
		}
		if !behind {
			break
		}
		select {
		case <-time.After(l.node.o.Heartbeat / 10):
		case <-ctx.Done():
		}
	}
	return nil
}
