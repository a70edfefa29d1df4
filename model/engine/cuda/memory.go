//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/plan"
	"mochi/model/network"
)

// needs are the bytes of device memory of a program, by what they are for;
// what the state and cuDNN's algorithms need comes on top.
type needs struct{ arena, images, partials, filter, vectors, statistics, grads int }

func (n needs) sum() int {
	return n.arena + n.images + n.partials + n.filter + n.vectors + n.statistics + n.grads
}

func needsOf(net *network.Network, p *plan.Plan) needs {
	n := needs{arena: p.Arena, images: 4 * p.Batch * net.Channels * net.ImageSize * net.ImageSize,
		partials: 4 * p.Partials, filter: p.Filter, statistics: 4 * p.Groups * net.NumBuffers()}
	if p.Groups > 1 && len(p.Backward) > 0 {
		n.grads = 4 * p.Groups * net.NumParams()
	}
	for _, norm := range p.Norms {
		n.vectors += 7 * vector(p.Groups*norm.Channels)
	}
	return n
}

// vector is the bytes of n values, to a multiple of 256.
func vector(n int) int { return (4*n + 255) / 256 * 256 }

// tooLarge says what a step needs and the largest batch that would fit, or how
// many groups: from the plans, nothing is tried. The step is program p, which
// has been released, and the programs of the same size that the state has
// already: were the batch smaller, theirs would be too.
func (s *state) tooLarge(p *program, cause error) error {
	free, err := s.e.device.Free()
	if err != nil {
		return errors.Join(cause, err)
	}
	free = max(0, free-s.e.pendingLossBytes())
	step := []*program{p}
	for _, q := range s.programs {
		if q.calls.Spec.Batch == p.calls.Spec.Batch && q.plan.Groups == p.plan.Groups {
			step = append(step, q)
			free += int64(needsOf(s.net, q.plan).sum())
		}
	}
	// How much less cuDNN's algorithms would need of a smaller batch, only cuDNN
	// knows.
	space := max(0, p.workspace-s.e.space.Bytes)
	need := func(n int) int {
		sum := space
		for _, q := range step {
			spec, groups := q.calls.Spec, q.plan.Groups
			if groups > 1 {
				groups = n
			} else {
				spec.Batch = n
			}
			smaller, err := plan.New(s.net, spec, groups, s.e.kind)
			if err != nil {
				return 1 << 62
			}
			sum += needsOf(s.net, smaller).sum()
		}
		return sum
	}
	most, unit := p.calls.Spec.Batch, "batch (--bn-group)"
	what := fmt.Sprintf("a step with a batch of %d needs", most)
	if groups := p.plan.Groups; groups > 1 {
		most, unit = groups, "number of groups at a time (--groups-at-once)"
		what = fmt.Sprintf("a step with %d groups of %d samples at a time needs", groups, p.calls.Spec.Batch)
	}
	fits := 0
	for low, high := 1, most; low <= high; {
		middle := (low + high) / 2
		if int64(need(middle)) <= free {
			fits, low = middle, middle+1
		} else {
			high = middle - 1
		}
	}
	advice := fmt.Sprintf("the largest %s that fits is about %d", unit, fits)
	if fits == 0 {
		advice = fmt.Sprintf("not even a %s of 1 fits", unit)
	}
	return fmt.Errorf("%s %d MiB of device memory, %d of %d MiB are free for it; %s: %w",
		what, need(most)>>20, free>>20, s.e.device.Memory>>20, advice, cause)
}

// tooMany says what the vectors of a network need.
func tooMany(e *gpu, net *network.Network, cause error) error {
	var full *driver.OutOfMemory
	if !errors.As(cause, &full) {
		return cause
	}
	table, _ := plan.Weights(net, e.kind)
	params, buffers := net.NumParams(), net.NumBuffers()
	bytes := 4*(3*params+2*buffers+max(params, buffers)) + 2*e.kind.Size()*plan.Copies(table)
	return fmt.Errorf("parameters, momentum and gradients need %d MiB of device memory, before any batch: %w", bytes>>20, cause)
}
