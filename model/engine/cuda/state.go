//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"slices"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/plan"
	"mochi/model/network"
)

// state implements engine.State. The device has the truth; host copies are
// brought up to date when they are asked for.
type state struct {
	e      *gpu
	net    *network.Network
	device map[engine.Vector]driver.Memory
	host   map[engine.Vector][]float32
	stale  map[engine.Vector]bool // the host copy is older than the device's

	grads   driver.Memory // of one backward, or of an update
	staging driver.Pinned // room for a vector on its way
	table   []kernel.Weight
	weights driver.Memory    // table, for the kernel
	copies  [2]driver.Memory // working copies of the convolutions' weights, by encoder
	lars    lars

	programs []*program
	failed   error // of a call that returns none; the next one that can does
	closed   bool
}

func newState(e *gpu, net *network.Network) (made *state, err error) {
	s := &state{e: e, net: net, device: map[engine.Vector]driver.Memory{}, host: map[engine.Vector][]float32{}, stale: map[engine.Vector]bool{}}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	for _, v := range engine.Vectors {
		n := s.length(v)
		s.host[v] = make([]float32, n)
		if s.device[v], err = e.device.Alloc(4 * n); err != nil {
			return nil, err
		}
	}
	s.table, _ = plan.Weights(net, e.kind)
	if s.grads, err = e.device.Alloc(4 * max(net.NumParams(), net.NumBuffers())); err != nil {
		return nil, err
	}
	if s.staging, err = e.device.AllocPinned(max(net.NumParams(), net.NumBuffers())); err != nil {
		return nil, err
	}
	if len(s.table) > 0 {
		raw := bytesOf(s.table)
		if s.weights, err = e.device.Alloc(len(raw)); err != nil {
			return nil, err
		}
		if err = e.work.UploadBytes(s.weights.Pointer, raw); err != nil {
			return nil, err
		}
		for i := range s.copies {
			if s.copies[i], err = e.device.Alloc(e.kind.Size() * plan.Copies(s.table)); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (s *state) length(v engine.Vector) int {
	if v == engine.QueryBuffers || v == engine.KeyBuffers {
		return s.net.NumBuffers()
	}
	return s.net.NumParams()
}

// masters is the parameter vector of an encoder.
func (s *state) masters(enc engine.Encoder) driver.Pointer {
	if enc == engine.Key {
		return s.device[engine.KeyParams].Pointer
	}
	return s.device[engine.QueryParams].Pointer
}

// running is the vector of running statistics of an encoder.
func (s *state) running(enc engine.Encoder) driver.Pointer {
	if enc == engine.Key {
		return s.device[engine.KeyBuffers].Pointer
	}
	return s.device[engine.QueryBuffers].Pointer
}

func (s *state) Network() *network.Network { return s.net }

// Host returns the host copy. A failure to bring it up to date is reported by
// the next call that returns an error.
func (s *state) Host(v engine.Vector) []float32 {
	if s.stale[v] && !s.closed {
		if err := s.fetch(v); err != nil {
			s.failed = errors.Join(s.failed, fmt.Errorf("read vector %d: %w", v, err))
		}
		s.stale[v] = false
	}
	return s.host[v]
}

func (s *state) fetch(v engine.Vector) error {
	leave, err := s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	pinned := s.staging.Floats(len(s.host[v]))
	if err := s.e.work.Download(pinned, s.device[v].Pointer); err != nil {
		return err
	}
	if err := s.e.work.Synchronize(); err != nil {
		return err
	}
	copy(s.host[v], pinned)
	return nil
}

func (s *state) Set(v engine.Vector, values []float32) {
	engine.MustSet(Name, s.net, v, values)
	copy(s.host[v], values)
	s.stale[v] = false
	if err := s.store(v, values); err != nil {
		s.failed = errors.Join(s.failed, fmt.Errorf("set vector %d: %w", v, err))
	}
}

func (s *state) store(v engine.Vector, values []float32) error {
	leave, err := s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.upload(s.device[v].Pointer, values); err != nil {
		return err
	}
	switch v {
	case engine.QueryParams:
		return s.refresh(engine.Query)
	case engine.KeyParams:
		return s.refresh(engine.Key)
	}
	return nil
}

// upload copies a vector to the device by way of pinned memory.
func (s *state) upload(to driver.Pointer, values []float32) error {
	pinned := s.staging.Floats(len(values))
	copy(pinned, values)
	if err := s.e.work.Upload(to, pinned); err != nil {
		return err
	}
	return s.e.work.Synchronize() // staging is free again
}

// refresh makes the working copies of an encoder's weights.
func (s *state) refresh(enc engine.Encoder) error {
	if len(s.table) == 0 {
		return nil
	}
	return s.e.kernels.Launch(s.e.work, kernel.Name("weights", s.e.kind), kernel.Weights(s.table),
		s.weights.Pointer, s.masters(enc), s.copies[enc].Pointer)
}

// usable returns what went wrong in a call that could not say so.
func (s *state) usable() error {
	if s.closed {
		return errors.New("the state is closed")
	}
	err := s.failed
	s.failed = nil
	return err
}

func (s *state) Compile(spec engine.Spec) (engine.Program, error) {
	return s.CompileGroups(spec, 1)
}

// CompileGroups implements engine.Grouped. Convolutions, products and all
// between them run on the groups together, with each group's own statistics;
// the gradients of weights, which stay apart, group after group.
func (s *state) CompileGroups(spec engine.Spec, groups int) (engine.Program, error) {
	p, err := s.compile(spec, groups)
	if err != nil {
		return nil, fmt.Errorf("engine cuda: compile %s: %w", s.net.Arch, err)
	}
	s.programs = append(s.programs, p)
	return p, nil
}

func (s *state) compile(spec engine.Spec, groups int) (*program, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	leave, err := s.e.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return compile(s, spec, groups)
}

func (s *state) Update(u engine.Update) error {
	err := s.usable()
	if err == nil {
		err = u.Validate(s.net)
	}
	if err == nil {
		err = s.update(u)
	}
	if err != nil {
		return fmt.Errorf("engine cuda: update %s: %w", s.net.Arch, err)
	}
	return nil
}

func (s *state) update(u engine.Update) error {
	leave, err := s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.upload(s.grads.Pointer, u.Grads); err != nil {
		return err
	}
	if err := s.step(u); err != nil {
		return err
	}
	for enc, statistics := range [][]float32{u.QueryStatistics, u.KeyStatistics} {
		if err := s.refresh(engine.Encoder(enc)); err != nil {
			return err
		}
		if len(statistics) == 0 {
			continue
		}
		if err := s.upload(s.grads.Pointer, statistics); err != nil {
			return err
		}
		// As Go rounds it: 1−0.1 in exact arithmetic, then float32.
		if err := s.e.kernels.Launch(s.e.work, "running", kernel.Flat(len(statistics)), int64(len(statistics)),
			float32(1-network.BatchNormMomentum), float32(network.BatchNormMomentum), s.grads.Pointer, s.running(engine.Encoder(enc))); err != nil {
			return err
		}
	}
	for _, v := range engine.Vectors {
		s.stale[v] = true
	}
	return s.e.work.Synchronize()
}

// step updates the parameters with the gradients that are on the device.
func (s *state) step(u engine.Update) error {
	if u.Trust != 0 {
		return s.lars.step(s, u)
	}
	n := s.net.NumParams()
	return s.e.kernels.Launch(s.e.work, "update", kernel.Flat(n), int64(n), u.LR, u.SGDMomentum, u.WeightDecay, u.EncoderMomentum,
		s.grads.Pointer, s.device[engine.Momentum].Pointer, s.device[engine.QueryParams].Pointer, s.device[engine.KeyParams].Pointer)
}

// Close frees the vectors, and the programs that are still open.
func (s *state) Close() error {
	if s.closed {
		return nil
	}
	var all []error
	for _, p := range slices.Clone(s.programs) { // each takes itself off the list
		all = append(all, p.Close())
	}
	leave, err := s.e.enter()
	if err != nil {
		return errors.Join(append(all, err)...)
	}
	defer leave()
	s.closed = true
	if err := errors.Join(append(all, s.failed, s.release())...); err != nil {
		return fmt.Errorf("engine cuda: close the state of %s: %w", s.net.Arch, err)
	}
	return nil
}

func (s *state) release() error {
	var all []error
	for v, m := range s.device {
		all = append(all, m.Release())
		delete(s.device, v)
	}
	for _, m := range []*driver.Memory{&s.grads, &s.weights, &s.copies[0], &s.copies[1]} {
		all = append(all, m.Release())
	}
	all = append(all, s.staging.Release(), s.lars.release())
	clear(s.host)
	return errors.Join(all...)
}

// forget takes a closed program off the list.
func (s *state) forget(p *program) {
	s.programs = slices.DeleteFunc(s.programs, func(q *program) bool { return q == p })
}
