package engine

import "time"

// This file lists what an engine may be able to do besides its contract, and
// who asks. Each is found by a type assertion, and every caller has another way
// when it fails:
//
//	ability      of        who asks             without it
//	Grouped      State     package model        groups one after the other
//	Stager       Program   package model        images travel with their Forward
//	Offloader    Contrast  package loss         panels on the CPU
//	Tracer       Program   package enginetest   whole networks are compared
//	KernelTimer  Engine    mochi bench          the figure is left out
//	DeviceTimer  Engine    mochi bench          the figures are left out
//
// Which engine has which: cuda all but KernelTimer, gorgonia and onednn
// KernelTimer alone.

// Grouped is a State that can run several BatchNorm groups in one program, so
// that a batch fills a GPU. The program of spec and n groups takes n·spec.Batch
// samples, group after group, and computes for each group what a program of
// spec alone does: Forward and Features as rows of all samples, Statistics
// [n, NumBuffers], and Backward's gradients [n, NumParams], which stay apart
// because sums over groups must not depend on who computed them (package
// replica). ready says that a parameter's gradients of all groups are final.
//
// A group's result depends on that group and on n alone. Its bits are those of
// a program of one group where convolutions and products are the same for
// every batch size; libraries choose among several.
//
// Hence --groups-at-once is a setting of the job and not of a machine: a member's
// bits must not depend on how many groups it was dealt, so whole units of n
// groups are dealt, and a program always computes n. The best n follows from a
// GPU's memory, which differs between members and is not known when groups are
// dealt; a default that followed it would make results do so too. For the same
// reason algorithms come from the library's ranking, or with --tune from a
// measurement that all members must have in common.
type Grouped interface {
	State
	// CompileGroups fails with ErrUnsupported where Compile would do.
	CompileGroups(spec Spec, n int) (Program, error)
}

// Stager is a Program that can take the images of its next Forward beforehand,
// so that their way to the device goes on beside other work.
type Stager interface {
	Program
	// Stage begins to copy images and returns at once. The next Forward, if it
	// is given this very slice, finds them there; others are copied as usual.
	// The values must stay as they are until that Forward has returned, or
	// Stage or Unstage has been called again.
	Stage(images []float32) error
	// Unstage lets go of what was staged, if anything was.
	Unstage() error
}

// Offloader is a Contrast with a device that can compute the parts of whole
// shards, where it keeps a copy of their keys.
type Offloader interface {
	Contrast
	// NewOffload fails with ErrUnsupported where Panels must do.
	NewOffload(shape LossShape) (Offload, error)
}

// Tracer is a Program that shows what it stores. In bf16 package enginetest
// then holds every stored value against the float64 layer on the engine's own
// input.
type Tracer interface {
	Program
	// Trace returns, by node, the feature maps that the last Forward stored and
	// the gradients that the last Backward stored for a node's input (that of an
	// addition, which hands on what it has, is not asked for), [B, C, H, W].
	// What is missing was stored without arithmetic, or not at all.
	Trace() (outputs, gradients map[int][]float32)
}

// KernelTimer is an Engine that can say how long its convolutions and matrix
// products took, since it was made: the mean over threads.
type KernelTimer interface {
	KernelTime() time.Duration
}

// DeviceTimer is an Engine that times its device by the device's own clock, by
// phase ("gpu_forward"), since it was made.
type DeviceTimer interface {
	DeviceTime() map[string]time.Duration
}
