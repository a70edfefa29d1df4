// Package run is a RUN folder and what a person sees of a run: config.yaml,
// log.jsonl, samples.jsonl and the checkpoints, the folder's lock, going on from
// what it holds, the lines of progress on stderr and warnings about the figures.
// A Job opens it; its Recorder is the coordinator's observer, its Store keeps
// the coordinator's checkpoints.
package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mochi/coordinator/event"
	"mochi/model/figures"
)

// Dir is a RUN folder: config.yaml, log.jsonl, samples.jsonl and
// checkpoints/. The coordinator's process writes it.
type Dir struct {
	path string

	mu      sync.Mutex
	log     *lineFile
	samples *lineFile // nil without --sample-log
}

// StepLine is one committed step in log.jsonl.
type StepLine struct {
	Step            int64 `json:"step"`  // commits so far, this one included
	Epoch           int   `json:"epoch"` // of its first sample
	Round           int64 `json:"round"` // that computed it
	World           int   `json:"world"` // members of that round
	figures.Figures       // means over the batch

	LR       float64            `json:"lr"`           // learning rate
	QueueAge float64            `json:"queue_age"`    // steps, mean of the keys that are samples'
	ImagesPS float64            `json:"images_per_s"` // global batch / step time; 0 when recovered from the log
	StepMS   float64            `json:"step_ms"`      // from the commit before, or the start of the round, to this one
	Time     string             `json:"time"`         // of its commit (RFC 3339, nanoseconds, UTC)
	Phases   map[string]float64 `json:"phases"`       // ms, of the slowest member
	Digest   string             `json:"digest"`       // of the query encoder's parameters after the step; "" when nobody lived to report it
}

// SampleLine is one committed step in samples.jsonl.
type SampleLine struct {
	Step    int64 `json:"step"`
	Epoch   int   `json:"epoch"`
	Round   int64 `json:"round"`
	Samples []int `json:"samples"`
}

// openRun prepares a RUN folder. Lines of steps above cut are dropped (−1:
// none are): the coordinator will run those steps again with other settings.
func openRun(path string, cut int64, sampleLog bool) (*Dir, error) {
	d := &Dir{path: path}
	var err error
	if d.log, err = openLines(filepath.Join(path, "log.jsonl"), cut); err != nil {
		return nil, err
	}
	if !sampleLog {
		return d, nil
	}
	if d.samples, err = openLines(filepath.Join(path, "samples.jsonl"), cut); err != nil {
		d.log.file.Close()
		return nil, err
	}
	return d, nil
}

// lineFile is a JSON-lines file open for appending.
type lineFile struct {
	file    *os.File
	last    int64    // highest step in it, or about to be
	size    int64    // of the whole lines in it
	pending [][]byte // lines that could not be written yet
}

// write writes a line behind those that could not be written before: after a full disk
// none is missing, none is there twice, and none is cut short.
func (f *lineFile) write(line []byte) error {
	f.pending = append(f.pending, append(line, '\n'))
	return f.flush()
}

func (f *lineFile) flush() error {
	for len(f.pending) > 0 {
		n, err := f.file.Write(f.pending[0])
		if err != nil {
			if n > 0 {
				err = errors.Join(err, f.file.Truncate(f.size)) // a part of the line
			}
			return err
		}
		f.size += int64(n)
		f.pending = f.pending[1:]
	}
	return nil
}

// openLines opens a JSON-lines file, without the lines of steps above cut and
// without a last line cut short by a crash.
func openLines(path string, cut int64) (*lineFile, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f := &lineFile{}
	var keep bytes.Buffer
	for line := range bytes.Lines(old) {
		var at struct {
			Step  int64  `json:"step"`
			Event string `json:"event"`
		}
		if json.Unmarshal(line, &at) != nil || !bytes.HasSuffix(line, []byte("\n")) || cut >= 0 && at.Step > cut {
			continue
		}
		keep.Write(line)
		if at.Event == "" {
			f.last = max(f.last, at.Step)
		}
	}
	if err := WriteFile(path, keep.Bytes()); err != nil {
		return nil, err
	}
	f.size = int64(keep.Len())
	f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	return f, err
}

// WriteFile replaces a file as a whole or not at all.
func WriteFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// append writes one line.
func (d *Dir) append(f *lineFile, line []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.write(line)
}

// step writes the line of a committed step, unless it is there already: steps
// that are run again after a crash have the same bits.
func (d *Dir) step(f *lineFile, step int64, v any) error {
	if f == nil || step <= f.last {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f.last = step
	return d.append(f, line)
}

// Event writes a line that is not a step.
func (d *Dir) Event(e event.Event) error {
	line, err := event.Line(e, time.Now())
	if err != nil {
		return err
	}
	return d.append(d.log, line)
}

func (d *Dir) close() error {
	err := errors.Join(d.log.flush(), d.log.file.Close())
	if d.samples != nil {
		err = errors.Join(err, d.samples.flush(), d.samples.file.Close())
	}
	return err
}
