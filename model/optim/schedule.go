package optim

import (
	"fmt"
	"math"
)

// The schedules of the command line.
const (
	Cosine = "cosine" // ½·base·(1 + cos(π·epoch/epochs)), MoCo-v2
	Step   = "step"   // base·0.1 from 60 % of the epochs on, base·0.01 from 80 % (MoCo-v1: 120 and 160 of 200)
)

// Schedule is the learning rate over a run.
type Schedule struct {
	Name   string // Cosine or Step
	Base   float64
	Epochs int // of the whole run
	Warmup int // epochs in which the rate rises linearly from 0 to Base; 0 = none
}

// LR is the learning rate at a point of the run, in epochs from 0 on with the
// part of the current one. It is constant inside an epoch, but for the warm-up,
// which rises step by step; then the schedule runs over the epochs that are
// left (Chen et al. 2021, MoCo v3). Epochs past the last keep its rate. It
// panics on an unknown schedule, which configuration refuses.
func (s Schedule) LR(epoch float64) float64 {
	if epoch = max(epoch, 0); epoch < float64(s.Warmup) {
		return s.Base * epoch / float64(s.Warmup)
	}
	at := max(0, min(int(epoch), s.Epochs-1)-s.Warmup)
	epochs := s.Epochs - s.Warmup
	switch s.Name {
	case Cosine:
		return s.Base * 0.5 * (1 + math.Cos(math.Pi*float64(at)/float64(max(epochs, 1))))
	case Step:
		switch {
		case 5*at >= 4*epochs:
			return s.Base * 0.01
		case 5*at >= 3*epochs:
			return s.Base * 0.1
		}
		return s.Base
	}
	panic(fmt.Sprintf("optim: unknown schedule %q", s.Name))
}
