package main

import (
	"mochi/model/optim"
	"mochi/replica/data/sampler"
)

// orderSpec asks for the order of samples.
type orderSpec struct {
	Samples, Batch, Steps int
	Seed                  uint64
}

// showOrder writes the samples and epochs of each step and the permutations of
// ShuffleBN, [steps, batch].
func showOrder(s orderSpec, out *tensors) error {
	order := sampler.New(s.Samples, s.Seed)
	var samples, epochs, shuffles []int32
	for step := range s.Steps {
		cursor := int64(step) * int64(s.Batch)
		for _, ref := range order.Batch(cursor, s.Batch) {
			samples, epochs = append(samples, int32(ref.Sample)), append(epochs, int32(ref.Epoch))
		}
		for _, at := range order.Shuffle(cursor, s.Batch) {
			shuffles = append(shuffles, int32(at))
		}
	}
	add(out, "samples", samples, s.Steps, s.Batch)
	add(out, "epochs", epochs, s.Steps, s.Batch)
	add(out, "shuffles", shuffles, s.Steps, s.Batch)
	return nil
}

// ratesSpec asks for the learning rate at points of a run, in epochs.
type ratesSpec struct {
	Name   string
	Base   float64
	Epochs int
	Warmup int
	At     []float64
}

func showRates(s ratesSpec, out *tensors) error {
	schedule := optim.Schedule{Name: s.Name, Base: s.Base, Epochs: s.Epochs, Warmup: s.Warmup}
	var rates []float64
	for _, at := range s.At {
		rates = append(rates, schedule.LR(at))
	}
	add(out, "rates", rates, len(rates))
	return nil
}
