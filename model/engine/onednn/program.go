//go:build onednn

package onednn

/*
#include "exec.h"
*/
import "C"

import (
	"errors"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/schedule"
)

// program implements engine.Program.
type program struct {
	s       *state
	calls   engine.Calls
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
	if s.c == nil {
		return nil, errors.New("the state is closed")
	}
	if err := errors.Join(spec.Validate(), engine.CheckPooling(s.net)); err != nil {
		return nil, err
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
	p := &program{s: s, calls: engine.Calls{Engine: Name, Net: s.net, Spec: spec, Groups: 1}, arena: plan.Arena, forward: len(plan.Forward), unused: plan.Unused}
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

func (p *program) Spec() engine.Spec { return p.calls.Spec }

func (p *program) Forward(images, dst []float32) error {
	if err := p.calls.Forward(p.c == nil, images, dst); err != nil {
		return err
	}
	p.pending = false
	if err := p.run(0, p.forward, images, nil, nil); err != nil {
		return p.calls.Fail("forward", err)
	}
	p.pending = p.calls.Spec.Mode == engine.Train
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
	p.calls.Features(p.c == nil, dst)
	copy(dst, p.features)
}

func (p *program) Statistics(dst []float32) {
	p.calls.Statistics(p.c == nil, dst)
	copy(dst, p.statistics)
}

func (p *program) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	if err := p.calls.Backward(p.c == nil, p.pending, dEmbeddings, grads); err != nil {
		return err
	}
	p.pending = false
	for _, param := range p.unused {
		t := p.s.net.Params[param]
		clear(grads[t.Offset : t.Offset+t.Size])
	}
	if ready == nil {
		if len(p.segments) > 0 {
			if err := p.run(p.forward, p.segments[len(p.segments)-1].to, nil, dEmbeddings, grads); err != nil {
				return p.calls.Fail("backward", err)
			}
		}
		return nil
	}
	for _, param := range p.unused {
		ready(param)
	}
	for _, s := range p.segments {
		if err := p.run(s.from, s.to, nil, dEmbeddings, grads); err != nil {
			return p.calls.Fail("backward", err)
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
