//go:build onednn

package onednn

/*
#include "exec.h"
*/
import "C"

import (
	"fmt"
	"slices"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/network"
	"mochi/model/optim"
)

// state implements engine.State. Its vectors are C memory, because the
// executor keeps pointers into them.
type state struct {
	e        *cpuEngine
	net      *network.Network
	c        *C.ox_state
	vectors  map[engine.Vector][]float32
	programs []*program
	sgd      C.mk_sgd // of the update under way; here, because C's arguments escape
	rates    []C.ox_rate
	lars     *optim.LARS // made by the first update that needs it
}

func newState(e *cpuEngine, net *network.Network) (*state, error) {
	s := &state{e: e, net: net, c: C.ox_state_open(e.c, C.size_t(net.NumParams()), C.size_t(net.NumBuffers()), e.err),
		vectors: map[engine.Vector][]float32{}}
	if s.c == nil {
		return nil, fmt.Errorf("engine onednn: state of %s: %w", net.Arch, e.message())
	}
	for _, v := range engine.Vectors {
		n, _ := v.Len(net)
		s.vectors[v] = unsafe.Slice((*float32)(unsafe.Pointer(C.ox_state_vector(s.c, C.int(v)))), n)
	}
	return s, nil
}

func (s *state) Network() *network.Network { return s.net }

func (s *state) Host(v engine.Vector) []float32 { return s.vectors[v] }

func (s *state) Set(v engine.Vector, values []float32) {
	engine.MustSet(Name, s.net, v, values)
	copy(s.vectors[v], values)
	if v == engine.QueryParams || v == engine.KeyParams {
		s.e.mu.Lock()
		defer s.e.mu.Unlock()
		C.ox_state_refresh(s.c)
	}
}

func (s *state) Update(u engine.Update) error {
	if s.c == nil {
		return fmt.Errorf("engine onednn: update %s: the state is closed", s.net.Arch)
	}
	if err := u.Validate(s.net); err != nil {
		return fmt.Errorf("engine onednn: update: %w", err)
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.sgd = C.mk_sgd{lr: C.float(u.LR), momentum: C.float(u.SGDMomentum), ema: C.float(u.EncoderMomentum)}
	s.setRates(u)
	C.ox_state_update(s.c, &s.sgd, unsafe.SliceData(s.rates), C.int(len(s.rates)), pointer(u.Grads), 1-network.BatchNormMomentum, network.BatchNormMomentum,
		pointer(u.QueryStatistics), pointer(u.KeyStatistics))
	return nil
}

// setRates makes rates for an update: one for all tensors, or LARS's.
func (s *state) setRates(u engine.Update) {
	rates := []optim.Rate{{End: len(u.Grads), Decay: u.WeightDecay, Rate: 1}}
	if u.Trust != 0 {
		if s.lars == nil {
			s.lars = optim.NewLARS(s.net, s.e.info.Threads)
		}
		rates = s.lars.Rates(u.Trust, u.WeightDecay, s.vectors[engine.QueryParams], u.Grads)
	}
	s.rates = s.rates[:0]
	for _, r := range rates {
		s.rates = append(s.rates, C.ox_rate{end: C.size_t(r.End), decay: C.float(r.Decay), rate: C.float(r.Rate)})
	}
}

func (s *state) Compile(spec engine.Spec) (engine.Program, error) {
	p, err := compile(s, spec)
	if err != nil {
		return nil, fmt.Errorf("engine onednn: compile %s: %w", s.net.Arch, err)
	}
	s.programs = append(s.programs, p)
	return p, nil
}

// lender is a training program of this state whose memory is free and large
// enough for p: its activations have been read by backward, or never written.
func (s *state) lender(p *program) *program {
	if p.calls.Spec.Mode == engine.Train {
		return nil
	}
	for _, l := range s.programs {
		if l.calls.Spec.Mode == engine.Train && !l.pending && l.arena >= p.arena {
			return l
		}
	}
	return nil
}

// Close frees the vectors, and the programs that are still open.
func (s *state) Close() error {
	if s.c == nil {
		return nil
	}
	for len(s.programs) > 0 {
		s.programs[0].Close()
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	C.ox_state_close(s.c)
	s.c = nil
	clear(s.vectors)
	return nil
}

// forget takes a closed program off the list.
func (s *state) forget(p *program) {
	s.programs = slices.DeleteFunc(s.programs, func(q *program) bool { return q == p })
}
