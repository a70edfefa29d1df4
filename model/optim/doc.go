// Package optim is the learning-rate schedule, and LARS for large batches. The
// optimiser's other arithmetic, SGD with momentum, is engine.Update: it runs
// where the parameters are.
package optim
