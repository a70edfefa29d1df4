package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/follow"
)

// put is what is written without anybody waiting for it.
type put struct {
	file   string
	line   []byte
	stored *follow.Checkpoint
}

// mostLine is how long a line may be: a message has at most 1 MiB.
const mostLine = needs - 4096

// Line puts a line behind those of a file, for all coordinators. It does not wait; the
// order is that of the calls. A line has 1 to 1,044,480 bytes, and no newline.
func (l *Leadership) Line(file string, text []byte) {
	if len(text) == 0 || len(text) > mostLine || bytes.IndexByte(text, '\n') >= 0 {
		l.g.o.Log.Error("a line that cannot be replicated is left out", "file", file, "bytes", len(text))
		return
	}
	l.told.Put(put{file: file, line: bytes.Clone(text)})
}

// Stored tells the others of a checkpoint, behind the lines so far. It does not wait.
func (l *Leadership) Stored(c follow.Checkpoint) { l.told.Put(put{stored: &c}) }

// run writes what was put, until the leadership ends.
func (l *Leadership) run() {
	ctx, cancel := context.WithCancel(l.g.ctx)
	defer cancel()
	go func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for l.told.Drain(func(queue []put) int {
		n, a := batch(queue)
		if !l.writeOut(ctx, a) {
			return 0
		}
		return n
	}) {
		select {
		case <-l.told.Wake():
		case <-ctx.Done():
			return
		}
	}
}

// batch is what goes into the next entry, and how much of the queue that is.
func batch(queue []put) (n int, a *attempt) {
	if c := queue[0].stored; c != nil {
		text, _ := json.Marshal(c) // numbers and strings
		return 1, setting(setStored, text)
	}
	file, size := queue[0].file, 0
	var lines [][]byte
	for _, p := range queue {
		if size += len(p.line) + 1; p.stored != nil || p.file != file || len(lines) > 0 && size > batchLines {
			break
		}
		lines = append(lines, p.line)
	}
	return len(lines), &attempt{make: func(s *state) (*entry, error) {
		return &entry{kind: kindLines, file: file, first: s.lines[file] + 1, body: bytes.Join(lines, []byte("\n"))}, nil
	}}
}

// writeOut tries until it succeeds; false: the leadership has ended.
func (l *Leadership) writeOut(ctx context.Context, a *attempt) bool {
	for wait := againAfter; ; wait = min(2*wait, againAtMost) {
		within, cancel := context.WithTimeout(ctx, againAtMost)
		err := l.put(within, a)
		cancel()
		if err == nil {
			return true
		}
		if errors.Is(err, coordinator.ErrFenced) {
			return false
		}
		l.g.o.Log.Debug("lines are not written yet", "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
}

// Flush returns when all lines so far are in the log.
func (l *Leadership) Flush(ctx context.Context) error {
	return l.told.Flush(ctx, l.done, coordinator.ErrFenced)
}

// Over tells all how the job ended, behind the lines so far.
func (l *Leadership) Over(ctx context.Context, o follow.Outcome) error {
	err := l.Flush(ctx)
	var text []byte
	if err == nil {
		text, err = json.Marshal(o)
	}
	if err == nil {
		err = l.put(ctx, setting(setOver, text))
	}
	if err == nil {
		err = l.g.passed(ctx, l.seq(ctx))
	}
	if err != nil {
		return fmt.Errorf("end the job for all coordinators: %w", err)
	}
	return nil
}

func (l *Leadership) seq(ctx context.Context) (seq uint64) {
	_ = l.read(ctx, func(s *state) { seq = s.seq }) // 0 is waited for at once
	return seq
}
