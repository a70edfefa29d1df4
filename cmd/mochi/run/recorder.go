package run

import (
	"sync/atomic"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// Recorder is the coordinator's observer: it writes the RUN folder and shows
// the steps. (Events are shown by the coordinator's logger.)
type Recorder struct {
	path     string // of the RUN folder
	out      Sink
	cfg      config.Job
	progress *Progress
	samples  atomic.Pointer[sampler.Sampler] // once the data is known
	health   health
	broken   bool // the log could not be written: said once
}

// Know tells the recorder what the job trains on.
func (r *Recorder) Know(d protocol.Data) {
	if d.Train > 0 && r.samples.Load() == nil {
		r.samples.Store(sampler.New(d.Train, r.cfg.Seed))
	}
}

// Committed implements coordinator.Observer.
func (r *Recorder) Committed(c coordinator.CommitRecord) {
	line := StepLine{
		Step: c.Commit.Step, Epoch: c.Commit.Epoch, Round: c.Commit.Round, World: c.World,
		Figures: c.Figures, LR: c.Commit.LR, QueueAge: queueAge(c.Commit.Cursor, r.cfg),
		ImagesPS: c.ImagesPS, StepMS: c.StepMS, Time: stamp(c.Time), Phases: c.Phases, CPU: c.CPU, Digest: c.Digest,
	}
	r.note(r.out.Step(LogFile, line.Step, line))
	s := r.samples.Load()
	if s != nil {
		l := SampleLine{Step: line.Step, Epoch: line.Epoch, Round: line.Round}
		for _, ref := range s.Batch(c.Commit.Cursor, c.Commit.Batch) {
			l.Samples = append(l.Samples, ref.Sample)
		}
		r.note(r.out.Step(SamplesFile, l.Step, l))
	}
	var steps int64
	if s != nil {
		steps = totalSteps(r.cfg, s, line.Step, c.Commit.Cursor+int64(c.Commit.Batch))
	}
	r.progress.step(line, steps)
	images := 0
	if s != nil {
		images = s.Len()
	}
	if text := r.health.look(line, r.cfg, images); text != "" {
		r.progress.Say("%s", text)
		r.note(r.out.Event(collapse{Step: line.Step, Spread: r.health.spread}))
	}
}

// Event implements coordinator.Observer.
func (r *Recorder) Event(e event.Event) {
	if d, ok := e.(event.Data); ok {
		if text := r.cfg.TooLargeFor(d.Train); text != "" && r.samples.Load() == nil { // no data set here: not said yet
			r.progress.Say("note: %s", text)
		}
		r.Know(protocol.Data{Train: d.Train})
	}
	r.note(r.out.Event(e))
}

// Watch makes the samples of a data set that cannot be decoded known: each is
// shown and logged once, and replaced. It returns how to list them.
func (r *Recorder) Watch(set *data.Set, strict bool) (corrupt func() []string) {
	for _, f := range set.Faults { // said with the announcement
		r.note(r.out.Event(unreadableData{Path: f.Path, Cause: f.Err.Error()}))
	}
	wrap := func(d data.Dataset, report func(*data.CorruptError)) *data.Lenient {
		l := data.NewLenient(d, report)
		if strict {
			l.SetStrict()
		}
		return l
	}
	report := func(what string) func(*data.CorruptError) {
		return func(e *data.CorruptError) {
			if strict {
				return // an error says it
			}
			r.progress.Say("%s cannot be decoded (%v); %s", e.Path, e.Err, what)
			r.note(r.out.Event(corruptImage{Path: e.Path, Cause: e.Err.Error()}))
		}
	}
	train := wrap(set.Train, report("another image takes its place, and kNN leaves it out"))
	set.Train = train
	if set.Test == nil {
		return train.Corrupt
	}
	test := wrap(set.Test, report("it is left out"))
	set.Test = test
	return func() []string { return append(train.Corrupt(), test.Corrupt()...) }
}

func (r *Recorder) note(err error) {
	if err != nil && !r.broken {
		r.broken = true
		r.progress.Say("cannot write %s: %v; training goes on without it", r.path, err)
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Over says whether a job of cfg on so many training images, whose checkpoint st is, has
// made all of its steps.
func Over(cfg config.Job, images int, st *checkpoint.State) bool {
	return st.Step > 0 && images > 0 && st.Step >= totalSteps(cfg, sampler.New(images, cfg.Seed), st.Step, st.Cursor)
}

// totalSteps is the length in steps of a job that has made so many and
// committed the samples before cursor (see coordinator.Core.Total).
func totalSteps(c config.Job, s *sampler.Sampler, step, cursor int64) int64 {
	if c.Steps > 0 {
		return c.Steps
	}
	return step + s.Steps(c.Epochs, c.Batch, cursor)
}
