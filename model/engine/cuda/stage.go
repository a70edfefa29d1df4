//go:build gpu

package cuda

import (
	"errors"
	"unsafe"

	"mochi/model/engine/cuda/driver"
)

// stage is where the images of a coming Forward wait: on their way by pinned
// memory, or there. It is made by the first Stage.
type stage struct {
	pinned driver.Pinned
	device driver.Memory
	there  driver.Event // they are on the device
	images []float32    // whose, nil: nobody's
	copied chan error   // of the goroutine that puts them into the stream
}

// Stage implements engine.Stager. The way to pinned memory is a goroutine's, as
// a copy of the host is not much faster than the bus.
func (p *program) Stage(images []float32) error {
	if err := p.unstage(); err != nil {
		return p.calls.Fail("stage", err)
	}
	if err := p.calls.Stage(p.closed, images); err != nil {
		return err
	}
	if p.staged == nil && !p.unstaged {
		err := p.newStage()
		if full := (*driver.OutOfMemory)(nil); errors.As(err, &full) {
			p.unstaged = true // images then come with their Forward, as without Stage
		} else if err != nil {
			return p.calls.Fail("stage", err)
		}
	}
	if p.unstaged {
		return nil
	}
	s := p.staged
	s.images, s.copied = images, make(chan error, 1)
	go func() { s.copied <- p.send(s, images) }()
	return nil
}

// Unstage implements engine.Stager.
func (p *program) Unstage() error {
	if err := p.unstage(); err != nil {
		return p.calls.Fail("stage", err)
	}
	return nil
}

// send copies images to the device beside what it computes.
func (p *program) send(s *stage, images []float32) error {
	pinned := s.pinned.Floats(len(images))
	copy(pinned, images)
	leave, err := p.s.e.device.Enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.s.e.uploads.Upload(s.device.Pointer, pinned); err != nil {
		return err
	}
	return s.there.Record(p.s.e.uploads)
}

func (p *program) newStage() (err error) {
	leave, err := p.s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	s := &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if s.device, err = p.s.e.device.Alloc(4 * p.calls.Images()); err != nil {
		return err
	}
	if s.pinned, err = p.s.e.device.AllocPinned(p.calls.Images()); err != nil {
		return err
	}
	if s.there, err = p.s.e.device.NewEvent(); err != nil {
		return err
	}
	p.staged = s
	return nil
}

// unstage forgets what is staged; nobody reads its images afterwards.
func (p *program) unstage() error {
	s := p.staged
	if s == nil || s.images == nil {
		return nil
	}
	s.images = nil
	return <-s.copied
}

// take prepares what bring will do: nothing where these images are staged, else
// it copies them to pinned memory.
func (p *program) take(images []float32) error {
	s := p.staged
	p.there = s != nil && s.images != nil && unsafe.SliceData(s.images) == unsafe.SliceData(images)
	if err := p.unstage(); err != nil || p.there {
		return err
	}
	copy(p.input.Floats(len(images)), images)
	return nil
}

// bring puts into the work stream what brings the images to where the first
// kernel reads them, and the end of it.
func (p *program) bring() (err error) {
	work := p.s.e.work
	if p.there {
		err = errors.Join(work.Wait(p.staged.there), work.Copy(p.nchw.Pointer, p.staged.device.Pointer, 4*p.calls.Images()))
	} else {
		err = work.Upload(p.nchw.Pointer, p.input.Floats(p.calls.Images()))
	}
	return errors.Join(err, p.clock.images.Record(work))
}

func (s *stage) release() error {
	all := []error{s.pinned.Release(), s.device.Release()}
	if s.there != (driver.Event{}) {
		all = append(all, s.there.Close())
	}
	return errors.Join(all...)
}
