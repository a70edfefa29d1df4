//go:build onednn

package onednn

/*
#include "exec.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/schedule"
	"mochi/model/network"
)

// program implements engine.Program.
type program struct {
	s       *state
	spec    engine.Spec
	c       *C.ox_program
	arena   int  // bytes
	pending bool // a Forward has kept activations for Backward

	embeddings, features, statistics []float32 // the program's, in C memory

	forward  int       // number of forward phases
	segments []segment // of backward
	unused   []int     // parameters without a gradient
}

// segment is a run of backward phases, after which some gradients are final.
type segment struct {
	from, to int
	ready    []int
}

// segmentSize is the number of gradients worth an interruption of backward:
// 1 MB, the smallest bucket that anyone sends.
const segmentSize = 1 << 18

func compile(s *state, spec engine.Spec) (*program, error) {
	switch {
	case s.c == nil:
		return nil, errors.New("the state is closed")
	case spec.Batch < 1:
		return nil, fmt.Errorf("batch: %d; at least 1 sample is needed", spec.Batch)
	case spec.Encoder != engine.Query && spec.Encoder != engine.Key:
		return nil, fmt.Errorf("there is no encoder %d", spec.Encoder)
	case spec.Mode < engine.Train || spec.Mode > engine.Eval:
		return nil, fmt.Errorf("there is no mode %d", spec.Mode)
	}
	for _, n := range s.net.Nodes {
		if n.Op == network.OpMaxPool && n.Kernel > maxPoolKernel {
			return nil, fmt.Errorf("max pooling of %d×%d pixels: %w: at most %d×%d", n.Kernel, n.Kernel, engine.ErrUnsupported, maxPoolKernel, maxPoolKernel)
		}
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	plan, err := schedule.New(s.net, schedule.Options{Spec: spec, Type: schedule.Type(s.e.kind),
		Wide: s.e.wide, Lanes: lanes(s.e.info.Threads), OwnWeightGrad: s.e.ownWeightGrad})
	if err != nil {
		return nil, err
	}
	c, err := s.e.plan(s.net, spec, plan)
	if err != nil {
		return nil, err
	}
	p := &program{s: s, spec: spec, arena: plan.Arena, forward: len(plan.Forward), unused: plan.Unused}
	if p.c = C.ox_program_open(s.c, &c, s.e.err); p.c == nil {
		return nil, s.e.message()
	}
	kept := func(tensor, n int) []float32 {
		return unsafe.Slice((*float32)(unsafe.Pointer(C.ox_program_kept(p.c, C.int(tensor)))), n)
	}
	p.embeddings = kept(plan.Output, spec.Batch*s.net.Dim)
	p.features = kept(plan.Feature, spec.Batch*s.net.FeatureDim)
	p.statistics = unsafe.Slice((*float32)(unsafe.Pointer(C.ox_program_statistics(p.c))), s.net.NumBuffers())
	p.segment(plan)
	return p, nil
}

// maxPoolKernel is the largest window of the pooling kernels.
const maxPoolKernel = 15

// lanes is the number of parts of a batch: at least two, so that one thread
// and two give the same bits.
func lanes(threads int) int { return max(2, threads) }

// segment cuts backward where enough gradients are final.
func (p *program) segment(plan *schedule.Schedule) {
	now := segment{from: p.forward}
	size := 0
	for i, ph := range plan.Backward {
		for _, param := range ph.Ready {
			now.ready = append(now.ready, param)
			size += p.s.net.Params[param].Size
		}
		if size >= segmentSize || i == len(plan.Backward)-1 {
			now.to = p.forward + i + 1
			p.segments = append(p.segments, now)
			now, size = segment{from: now.to}, 0
		}
	}
}

func (p *program) Spec() engine.Spec { return p.spec }

func (p *program) Forward(images, dst []float32) error {
	net := p.s.net
	if err := p.check("forward",
		length{"images", len(images), p.spec.Batch * net.Channels * net.ImageSize * net.ImageSize},
		length{"destination", len(dst), len(p.embeddings)}); err != nil {
		return err
	}
	p.pending = false
	if err := p.run(0, p.forward, images, nil, nil); err != nil {
		return p.fail("forward", err)
	}
	p.pending = p.spec.Mode == engine.Train
	copy(dst, p.embeddings)
	return nil
}

// run runs phases [from, to).
func (p *program) run(from, to int, images, gradient, grads []float32) error {
	e := p.s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	var arena *C.ox_program
	if l := p.s.lender(p); l != nil {
		arena = l.c
	}
	if C.ox_program_run(p.c, arena, C.int(from), C.int(to), pointer(images), pointer(gradient), pointer(grads), e.err) != 0 {
		return e.message()
	}
	return nil
}

func (p *program) Features(dst []float32) {
	p.must("features", length{"destination", len(dst), len(p.features)})
	copy(dst, p.features)
}

func (p *program) Statistics(dst []float32) {
	if p.spec.Mode == engine.Eval {
		panic("engine onednn: statistics: a program in mode Eval has none")
	}
	p.must("statistics", length{"destination", len(dst), len(p.statistics)})
	copy(dst, p.statistics)
}

func (p *program) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	if p.spec.Mode != engine.Train {
		return p.fail("backward", errors.New("the program was not compiled in mode Train"))
	}
	if err := p.check("backward",
		length{"gradients of embeddings", len(dEmbeddings), len(p.embeddings)},
		length{"destination", len(grads), p.s.net.NumParams()}); err != nil {
		return err
	}
	if !p.pending {
		return p.fail("backward", errors.New("it must follow a Forward, once"))
	}
	p.pending = false
	for _, param := range p.unused {
		t := p.s.net.Params[param]
		clear(grads[t.Offset : t.Offset+t.Size])
	}
	if ready == nil {
		if len(p.segments) > 0 {
			if err := p.run(p.forward, p.segments[len(p.segments)-1].to, nil, dEmbeddings, grads); err != nil {
				return p.fail("backward", err)
			}
		}
		return nil
	}
	for _, param := range p.unused {
		ready(param)
	}
	for _, s := range p.segments {
		if err := p.run(s.from, s.to, nil, dEmbeddings, grads); err != nil {
			return p.fail("backward", err)
		}
		for _, param := range s.ready {
			ready(param)
		}
	}
	return nil
}

func (p *program) Close() error {
	if p.c == nil {
		return nil
	}
	p.s.e.mu.Lock()
	defer p.s.e.mu.Unlock()
	C.ox_program_close(p.c)
	p.c, p.embeddings, p.features, p.statistics = nil, nil, nil, nil
	p.s.forget(p)
	return nil
}

// length is an argument's length beside the right one.
type length struct {
	name      string
	got, want int
}

func (p *program) check(action string, lengths ...length) error {
	if p.c == nil {
		return p.fail(action, errors.New("the program is closed"))
	}
	for _, l := range lengths {
		if l.got != l.want {
			return p.fail(action, fmt.Errorf("%s: %d values, want %d", l.name, l.got, l.want))
		}
	}
	return nil
}

func (p *program) must(action string, l length) {
	if err := p.check(action, l); err != nil {
		panic(err)
	}
}

func (p *program) fail(action string, err error) error {
	return fmt.Errorf("engine onednn: %s of %s, batch %d: %w", action, p.s.net.Arch, p.spec.Batch, err)
}
