// Package input is what the steps of a replica compute on: which samples, in
// which order, and their images, on time.
//
// Which samples a step has is a function of the seed and of the cursor (samples
// committed so far): sampler.Batch. Query views are those of the batch in its
// order; key views those of the permuted batch (ShuffleBN), so that a key is
// normalised with other neighbours than its query. The permutation is of
// indices: whoever computes a key view decodes that image itself.
//
// Images are asked for some steps ahead (Prefetch); those that are on other machines
// are brought to this one further ahead (data.Ahead). On a GPU they are also on
// their way to it before they are computed on: the queries while keys are
// computed, those of each further unit while the one before it computes, and the
// first keys of the next step while this one's last unit goes backward, if they
// are loaded by then. Engines without a device ignore that.
package input

import (
	"context"
	"errors"
	"slices"
	"time"

	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// Prefetch is how many steps images are asked for ahead.
const Prefetch = 2

// Source delivers the images of steps in the order in which they were asked for
// (a data.Loader).
type Source interface {
	// Submit asks for a step's images. It does not block.
	Submit(data.Request) error
	// Next waits for the images of the oldest request; its caller releases them.
	Next(ctx context.Context) (*data.Batch, time.Duration, error)
	// Ready is what Next would return if it need not wait, else nil.
	Ready() *data.Batch
	// Reset drops all that was asked for.
	Reset()
	// Close ends the source.
	Close()
}

// Stager brings images to a device ahead of their use, and lets go of those that
// are on their way, if any: their memory is not read afterwards (model.MoCo).
type Stager interface {
	StageKeys(images []float32) error
	StageQueries(images []float32) error
	UnstageKeys() error
	UnstageQueries() error
}

// Config is what an Input needs to know of the job.
type Config struct {
	Seed   uint64
	Batch  int  // B, samples of a global batch
	Unit   int  // n·g, samples of a unit: what one program computes
	Labels bool // the loss is told the classes of samples
	NoKeys bool // steps have no key views
}

// Input is a replica's input. One goroutine uses it.
type Input struct {
	cfg     Config
	data    data.Dataset
	sampler *sampler.Sampler
	source  Source
	stager  Stager
	ahead   *data.Ahead // for data that are elsewhere

	units   []int                  // first samples in the global batch of the units of this round
	besides func(step int64) []int // those of units that this member computes besides in a step; nil: none
	step    Step                   // in hand
	staged  *data.Batch            // of the next step, whose first keys are on their way to a device; nil: none
	fault   error                  // of a Release, for the next Next
}

// New makes the input of a job on a data set. It closes source in the end.
func New(cfg Config, d data.Dataset, source Source, stager Stager) *Input {
	return &Input{cfg: cfg, data: d, sampler: sampler.New(d.Len(), cfg.Seed), source: source, stager: stager, ahead: data.NewAhead(d)}
}

// Step is the samples of a step and this member's images of them. It is the
// Input's, valid until the next call of Next.
type Step struct {
	Samples []int   // [B] of the data set, in the order of the global batch
	Classes []int32 // [B] −1 where unknown
	Labels  []int32 // [B] those classes where the loss is told them, else nil
	Shuffle []int   // [B] position i of the permuted batch is sample Shuffle[i] of the batch

	Query, Key           [][]float32 // by unit, [n·g, 3, S, S]; keys of no samples without key views
	QueryAgain, KeyAgain [][]float32 // those of the units that are computed besides

	images *data.Batch
}

// Epoch is the epoch of the sample at cursor, from 0.
func (in *Input) Epoch(cursor int64) int { return in.sampler.Epoch(cursor) }

// Start begins a round after so many steps and samples, in which this member
// computes units, given by the first of their samples in the global batch, and
// those that besides lists for a step (nil: none). What was asked for in another
// round is dropped.
func (in *Input) Start(step, cursor int64, units []int, besides func(step int64) []int) error {
	if err := in.unstage(); err != nil {
		return err
	}
	in.source.Reset()
	in.units, in.besides = units, besides
	in.ahead.Reset()
	if err := in.fetch(step, cursor); err != nil {
		return err
	}
	for ahead := range Prefetch {
		if err := in.submit(step, cursor, ahead); err != nil {
			return err
		}
	}
	return nil
}

// Next waits for the images of the step after so many steps and samples, and
// brings the first queries on their way. The caller calls Release.
func (in *Input) Next(ctx context.Context, step, cursor int64) (*Step, error) {
	if in.fault != nil {
		return nil, in.fault
	}
	images, _, err := in.source.Next(ctx)
	if err != nil {
		return nil, err
	}
	s := &in.step
	n := len(in.units)
	s.images, s.Query, s.Key = images, images.Query[:n], images.Key[:n]
	s.QueryAgain, s.KeyAgain = images.Query[n:], images.Key[n:]
	if err := in.begin(images, step, cursor); err != nil {
		in.Release()
		return nil, err
	}
	s.Samples, s.Classes, s.Labels = s.Samples[:0], s.Classes[:0], nil
	for _, ref := range in.sampler.Batch(cursor, in.cfg.Batch) {
		s.Samples = append(s.Samples, ref.Sample)
		s.Classes = append(s.Classes, in.data.Label(ref.Sample))
	}
	if in.cfg.Labels {
		s.Labels = s.Classes
	}
	s.Shuffle = in.sampler.Shuffle(cursor, in.cfg.Batch)
	return s, nil
}

// begin asks for the step after those that were asked for, and sets this one's
// first queries on their way.
func (in *Input) begin(images *data.Batch, step, cursor int64) error {
	if err := in.claim(images); err != nil {
		return err
	}
	if err := in.fetch(step, cursor); err != nil {
		return err
	}
	if err := in.submit(step, cursor, Prefetch); err != nil {
		return err
	}
	return in.StageQueries(0)
}

// Release gives the images of the step in hand back. Where a device cannot be
// kept from reading them, it says so at the next Next.
func (in *Input) Release() {
	if in.step.images != nil {
		in.fault = in.stager.UnstageQueries() // should the step have ended early
		in.step.images.Release()
		in.step.images = nil
	}
}

// StageQueries brings the queries of a unit of the step in hand on their way, if
// there is such a unit.
func (in *Input) StageQueries(unit int) error {
	if unit >= len(in.step.Query) {
		return nil
	}
	return in.stager.StageQueries(in.step.Query[unit])
}

// StageAhead brings the first keys of the next step on their way. It changes
// nothing if they are not there yet.
func (in *Input) StageAhead() error {
	next := in.source.Ready()
	if next == nil || len(next.Key) == 0 || in.cfg.NoKeys {
		return nil
	}
	in.staged = next
	return in.stager.StageKeys(next.Key[0])
}

// claim drops staged images that belong to another batch: their buffer may have
// been reused.
func (in *Input) claim(b *data.Batch) error {
	if in.staged == b {
		in.staged = nil
		return nil
	}
	return in.unstage()
}

// unstage lets go of all images that are on their way.
func (in *Input) unstage() error {
	in.staged = nil
	return errors.Join(in.stager.UnstageKeys(), in.stager.UnstageQueries())
}

// Close ends the source. Nothing of its memory is read afterwards.
func (in *Input) Close() error {
	err := in.unstage()
	in.source.Close()
	return err
}

// fetch has the images of the next step and of some behind it brought to this machine,
// where they are elsewhere.
func (in *Input) fetch(step, cursor int64) error {
	return in.ahead.Keep(step, func(further int) []int {
		r := in.request(step, cursor, further)
		var samples []int
		for _, refs := range slices.Concat(r.Query, r.Key) {
			for _, ref := range refs {
				samples = append(samples, ref.Sample)
			}
		}
		slices.Sort(samples)
		return slices.Compact(samples)
	})
}

// submit asks for the images of the step that is ahead steps after the next.
func (in *Input) submit(step, cursor int64, ahead int) error {
	return in.source.Submit(in.request(step, cursor, ahead))
}

// request is what this member needs of the step that is ahead steps after the next.
func (in *Input) request(step, cursor int64, ahead int) data.Request {
	cursor += int64(ahead * in.cfg.Batch)
	refs := in.sampler.Batch(cursor, in.cfg.Batch)
	shuffle := in.sampler.Shuffle(cursor, in.cfg.Batch)
	request := data.Request{Step: step + 1 + int64(ahead)}
	units := in.units
	if in.besides != nil {
		units = slices.Concat(units, in.besides(request.Step))
	}
	for _, first := range units {
		end := first + in.cfg.Unit
		request.Query = append(request.Query, refs[first:end])
		var keys []sampler.Ref
		if !in.cfg.NoKeys {
			for _, i := range shuffle[first:end] {
				keys = append(keys, refs[i])
			}
		}
		request.Key = append(request.Key, keys)
	}
	return request
}
