package main

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// killed is what kills of a replica cost, in ms; and a healthy step.
type killed struct {
	Times       int                `json:"times"`
	MedianMs    float64            `json:"median_ms"` // from the kill to the next commit, of the others
	WorstMs     float64            `json:"worst_ms"`
	StepMs      float64            `json:"step_ms"`                // median of the steps of three replicas
	Phases      map[string]float64 `json:"phases"`                 // of those, mean ms by name, of the slowest member
	Coordinator float64            `json:"coordinator_cpu_s_step"` // processor seconds of the coordinator a step, kills included
}

// kill kills a replica at random moments, again and again, and measures the time
// to the first commit of a later round.
func (w *world) kill(ctx context.Context) (any, []string, error) {
	k := killed{}
	if err := w.startAll(ctx); err != nil {
		return k, nil, err
	}
	random := rand.New(rand.NewPCG(w.seed, 23))
	log := filepath.Join(w.cluster.state, "log.jsonl")
	var took []float64
	for range w.times {
		from, err := lastStep(w.cluster.state)
		if err != nil {
			return k, w.cluster.broken(), err
		}
		if err = w.await(ctx, 3*time.Minute, "twenty steps of three replicas", func(steps []line) bool {
			n := len(steps)
			return n > 20 && steps[n-1].Step > from+20 && steps[n-1].World == len(names) && steps[n-20].World == len(names)
		}); err != nil {
			return k, w.cluster.broken(), err
		}
		if err = wait(ctx, time.Duration(random.Int64N(int64(2*time.Second)))); err != nil {
			return k, w.cluster.broken(), err
		}
		victim := w.cluster.replicas[names[random.IntN(len(names))]]
		at := time.Now()
		w.note("kill", victim.name)
		done, err := victim.signal(syscall.SIGKILL, true)
		if err != nil {
			return k, w.cluster.broken(), err
		}
		<-done
		if err = w.await(ctx, 3*time.Minute, "a commit after a kill", func(steps []line) bool {
			i := next(steps, at)
			if i >= 0 {
				took = append(took, float64(steps[i].Time.Sub(at))/1e6)
			}
			return i >= 0
		}); err != nil {
			return k, w.cluster.broken(), err
		}
		if err = w.cluster.start(victim); err != nil {
			return k, w.cluster.broken(), err
		}
	}
	used := cpu(w.cluster.coordinator.pid())
	lines, err := readLog(log)
	if err != nil {
		return k, w.cluster.broken(), err
	}
	steps := commits(lines)
	k.Coordinator = used.Seconds() / float64(len(steps))
	k.StepMs, k.Phases = healthy(steps)
	w.cluster.end(3 * time.Minute)
	slices.Sort(took)
	k.Times, k.MedianMs, k.WorstMs = len(took), took[len(took)/2], took[len(took)-1]
	last, err := lastStep(w.cluster.state)
	if err != nil {
		return k, w.cluster.broken(), err
	}
	lines, err = readLog(log)
	return k, append(w.cluster.broken(), checkLog(lines, last)...), err
}

// next is the index of the first step that was committed after a moment without
// one of the replicas, by a later round than the last one before it; -1 when there
// is none yet. A commit that was under way when the moment came is not one.
func next(steps []line, after time.Time) int {
	round := int64(0)
	for i, l := range steps {
		if l.Time.Before(after) {
			round = l.Round
		} else if l.Round > round && l.World < len(names) {
			return i
		}
	}
	return -1
}

// healthy is the median duration of steps of all replicas whose predecessor was
// of the same round, and the mean of their phases.
func healthy(steps []line) (ms float64, phases map[string]float64) {
	var took []float64
	phases = map[string]float64{}
	for i, l := range steps {
		if i == 0 || l.Round != steps[i-1].Round || l.World != len(names) {
			continue
		}
		took = append(took, l.StepMs)
		for name, v := range l.Phases {
			phases[name] += v
		}
	}
	if len(took) == 0 {
		return 0, phases
	}
	for name := range phases {
		phases[name] /= float64(len(took))
	}
	slices.Sort(took)
	return took[len(took)/2], phases
}
