// Package optim is the learning-rate schedule, and the rates of LARS for large
// batches. The optimiser's arithmetic, SGD with momentum, is engine.Update: it
// runs where the parameters are, and where that is a GPU, so do LARS's rates,
// which are pinned to the bit here.
package optim
