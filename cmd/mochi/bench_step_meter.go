package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"time"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/model/engine"
	"mochi/replica"
	"mochi/replica/input"
	"mochi/replica/replicatest"
)

// benchSamples is the length of the data set that a benchmark pretends to have.
const benchSamples = 1 << 16

// benchStep trains a replica, the one that `mochi train` has, for so many steps:
// on random images in memory, alone in its ring, under a coordinator that commits
// at once. It closes the engine.
func benchStep(ctx context.Context, eng engine.Engine, job config.Job, warmup, steps int, progress io.Writer) (stepBench, error) {
	job.MoCHiWarmup = 0 // synthetic negatives from the first step on
	info := eng.Info()
	images := replicatest.NewImages(job.ImageSize, job.Seed)
	script := replicatest.NewScript(job, int64(warmup+steps))
	script.Save = false
	meter := &stepMeter{eng: eng, warmup: warmup, steps: steps, progress: progress, phases: map[string][]float64{}, cpu: map[string][]float64{}}
	script.Heard = meter.heard
	err := replica.New(replica.Config{
		ID: "bench", Name: "bench", Info: info, Link: script,
		Data:   replicatest.Pictures{N: benchSamples, Size: job.ImageSize}.Set(),
		Engine: func(engine.Precision) (engine.Engine, error) { return eng, nil },
		Images: func(config.Job) input.Source { return images },
		Ring:   aloneInRing,
	}).Run(ctx)
	if err != nil {
		return stepBench{}, err
	}
	r := stepBench{
		StepP50: percentile(meter.total, 50), StepP99: percentile(meter.total, 99),
		KernelMS: percentile(meter.kernel, 50), Phases: map[string]float64{}, CPU: map[string]float64{},
		PeakRSS: peakRSS(), Allocs: meter.allocs / float64(steps),
		Engine: info.Name, Device: info.Device, Versions: info.Versions,
		Steps: steps, AtOnce: images.Unit() / job.BNGroup,
	}
	r.ImagesPS = float64(job.Batch) / r.StepP50 * 1e3
	for name, ms := range meter.phases {
		r.Phases[name] = percentile(ms, 50)
	}
	for name, ms := range meter.cpu {
		r.CPU[name] = percentile(ms, 50)
	}
	return r, nil
}

// aloneInRing opens the ring of a world of one.
func aloneInRing(context.Context, protocol.Round, int, config.Job) (replica.Ring, error) {
	return replicatest.Ring{}, nil
}

// stepMeter measures a replica from commit to commit, as a job counts its steps:
// a script commits a step the moment it hears that it was voted for.
type stepMeter struct {
	eng           engine.Engine
	warmup, steps int
	progress      io.Writer

	seen  int // votes
	last  reading
	after protocol.Applied // of the step before the one in hand

	total, kernel []float64            // of the steps measured, ms
	phases, cpu   map[string][]float64 // likewise
	allocs        float64              // of all of them
}

// reading is what the process's counters say at one moment.
type reading struct {
	at      time.Time
	mallocs uint64 // of the whole process
	kernel  time.Duration
	device  map[string]time.Duration
}

func (m *stepMeter) read() reading {
	var r reading
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.mallocs = memory.Mallocs
	if timer, ok := m.eng.(engine.KernelTimer); ok {
		r.kernel = timer.KernelTime()
	}
	if timer, ok := m.eng.(engine.DeviceTimer); ok {
		r.device = timer.DeviceTime()
	}
	r.at = time.Now()
	return r
}

// heard is told what the replica says: a replica that is welcomed begins its
// first step, and every vote ends one, of which the end of the step before is a
// part.
func (m *stepMeter) heard(said protocol.Message) (answered bool) {
	switch {
	case said.Hello != nil:
		m.last = m.read()
	case said.Ready != nil:
		now := m.read()
		if m.seen++; m.seen > m.warmup {
			m.add(now, said.Ready)
		}
		m.last = now
	case said.Applied != nil:
		m.after = *said.Applied
	}
	return false
}

// add counts the step that has just ended.
func (m *stepMeter) add(now reading, vote *protocol.Ready) {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	step := ms(now.at.Sub(m.last.at))
	m.total = append(m.total, step)
	m.kernel = append(m.kernel, ms(now.kernel-m.last.kernel))
	m.allocs += float64(now.mallocs - m.last.mallocs)
	parts := maps.Clone(vote.Phases)
	maps.Copy(parts, m.after.Phases)
	rest := step
	for _, part := range parts {
		rest -= part
	}
	parts["rest"] = max(0, rest)
	for name, spent := range now.device {
		parts[name] = ms(spent - m.last.device[name])
	}
	for name, part := range parts {
		m.phases[name] = append(m.phases[name], part)
	}
	for _, cpu := range []map[string]float64{vote.CPU, m.after.CPU} {
		for name, ms := range cpu {
			m.cpu[name] = append(m.cpu[name], ms)
		}
	}
	fmt.Fprintf(m.progress, "step %d/%d: %.1f ms\n", m.seen-m.warmup, m.steps, step)
}
