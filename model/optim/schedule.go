// Package optim is the learning-rate schedule. The optimiser's arithmetic, SGD
// with momentum, is engine.Update: it runs where the parameters are.
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

// LR is the learning rate of an epoch, counted from 0; it is constant inside
// an epoch and without warm-up. Epochs past the last keep its rate. It panics
// on an unknown schedule, which configuration refuses.
func LR(schedule string, base float64, epoch, epochs int) float64 {
	epoch = max(0, min(epoch, epochs-1))
	done := float64(epoch) / float64(max(epochs, 1))
	switch schedule {
	case Cosine:
		return base * 0.5 * (1 + math.Cos(math.Pi*done))
	case Step:
		switch {
		case 5*epoch >= 4*epochs:
			return base * 0.01
		case 5*epoch >= 3*epochs:
			return base * 0.1
		}
		return base
	}
	panic(fmt.Sprintf("optim: unknown schedule %q", schedule))
}
