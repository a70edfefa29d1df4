// Package run is a RUN folder and what a person sees of a run: config.yaml,
// log.jsonl, samples.jsonl and the checkpoints, the folder's lock, going on from
// what it holds, the lines of progress on stderr and warnings about the figures.
// A Job opens it; its Recorder is the coordinator's observer, its Store keeps
// the coordinator's checkpoints.
package run

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mochi/coordinator/event"
	"mochi/model/figures"
)

// The JSON-lines files of a RUN folder.
const (
	LogFile     = "log.jsonl"     // committed steps and events
	SamplesFile = "samples.jsonl" // with --sample-log: which samples each step had
)

// Sink is where the lines of a run go. It may be used from several goroutines.
type Sink interface {
	// Step takes the line of a committed step for one of the files, unless the file has
	// it already: steps that are run again after a crash have the same bits.
	Step(file string, step int64, v any) error
	// Event takes a line for LogFile that is not a step.
	Event(e event.Event) error
}

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

	LR       float64            `json:"lr"`            // learning rate
	QueueAge float64            `json:"queue_age"`     // steps, mean of the keys that are samples'
	ImagesPS float64            `json:"images_per_s"`  // global batch / step time; 0 when recovered from the log
	StepMS   float64            `json:"step_ms"`       // from the commit before, or the start of the round, to this one
	Time     string             `json:"time"`          // of its commit (RFC 3339, nanoseconds, UTC)
	Phases   map[string]float64 `json:"phases"`        // ms, of the slowest member: load, key_forward, gather, query, probe (--probe), reduce, digest (of the sums), audit (where there is one), vote (it is sent), commit (from the vote to the commit, of the member that voted last: the log, the way there and back), apply, applied (digests of the state)
	CPU      map[string]float64 `json:"cpu,omitempty"` // ms of processor time, of all members, of the phases that only make the step a transaction: digest, vote, applied; of probe; and coordinator, all that it used since the line before, where it is a process of its own
	Digest   string             `json:"digest"`        // of the query encoder's parameters after the step; "" when nobody lived to report it
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
	if d.log, err = openLines(filepath.Join(path, LogFile), cut); err != nil {
		return nil, err
	}
	if !sampleLog {
		return d, nil
	}
	if d.samples, err = openLines(filepath.Join(path, SamplesFile), cut); err != nil {
		d.log.file.Close()
		return nil, err
	}
	return d, nil
}

// WriteFile replaces a file as a whole or not at all.
func WriteFile(path string, content []byte) error {
	// With the mode that the process makes files with (umask).
	tmp, err := os.OpenFile(path+"."+rand.Text()[:8]+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
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
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Step implements Sink.
func (d *Dir) Step(file string, step int64, v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.log
	if file == SamplesFile {
		f = d.samples
	}
	if f == nil || step <= f.last {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f.last = step
	return f.write(line)
}

// Event implements Sink.
func (d *Dir) Event(e event.Event) error {
	line, err := event.Line(e, time.Now())
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.write(line)
}

func (d *Dir) close() error {
	err := errors.Join(d.log.flush(), d.log.file.Close())
	if d.samples != nil {
		err = errors.Join(err, d.samples.flush(), d.samples.file.Close())
	}
	return err
}
