package config

import (
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// incidental are the fields that leave the mathematics alone: what is watched,
// kept and waited for, and how far the job runs.
var incidental = []string{
	"preset", "steps", "queue-copies", "knn-every", "checkpoint-every", "keep",
	"sample-log", "strict-data", "min-replicas", "max-replicas",
}

// structural are the fields that a checkpoint's tensors and the order of its
// samples are made for: they cannot change when a run is resumed. The batch
// can, for the sampler counts samples, not steps; so can the queue's length,
// shards and storage, for a checkpoint holds its keys in the order of slots,
// as float32.
var structural = []string{"arch", "head", "image-size", "dim", "optimizer", "seed"}

// effective is c with what auto stands for.
func (c Job) effective() Job {
	c.QueueStorage = c.Storage()
	return c
}

// Digest identifies the mathematics of a job: 16 hexadecimal digits over every
// field that can change a result. Two configurations have the same digest if
// and only if Differences finds none (but for collisions of a 64-bit hash).
func (c Job) Digest() string {
	h := xxhash.New()
	c = c.effective()
	for _, f := range fieldsOf(&c) {
		if !slices.Contains(incidental, f.name) {
			fmt.Fprintf(h, "%s: %v\n", f.name, f.value.Interface())
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// Differences lists the fields of the mathematics in which a and b differ, as
// "batch: 128 ≠ 256" with a's value first.
func Differences(a, b Job) []string {
	return differences(a, b, func(name string) bool { return !slices.Contains(incidental, name) })
}

// CompatibleResume lists, in the form of Differences, the fields that differ
// and may not when a run made with old is resumed with new: those that the
// checkpoint's tensors and the order of samples depend on. Everything else may
// change (length, learning rate, MoCHi's numbers, replica limits, …).
func CompatibleResume(old, new Job) []string {
	return differences(old, new, func(name string) bool { return slices.Contains(structural, name) })
}

func differences(a, b Job, compared func(name string) bool) []string {
	var list []string
	a, b = a.effective(), b.effective()
	fb := fieldsOf(&b)
	for i, fa := range fieldsOf(&a) {
		va, vb := fa.value.Interface(), fb[i].value.Interface()
		if compared(fa.name) && va != vb {
			list = append(list, fmt.Sprintf("%s: %v ≠ %v", fa.name, va, vb))
		}
	}
	return list
}
