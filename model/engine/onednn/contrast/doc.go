// Package contrast is the arithmetic of the loss in C: engine.Panel for
// AVX-512, a pass over the queue for 32 queries at a time (panel_amd64.c says
// how). Where the processor has less, panels are those of package cpu, which
// have AVX2 and plain Go.
//
// It is there with the build tag onednn, as the engine whose loss it is, but
// stands on no library. The slow twin of its kernels, and their oracle, is
// plainLoss in model/loss/plain_test.go.
//
// A panel allocates all its memory when it is made, so that scanning and
// mixing cannot fail.
package contrast
