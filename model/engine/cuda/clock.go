//go:build gpu

package cuda

import (
	"errors"
	"time"

	"mochi/model/engine/cuda/driver"
)

// clock times a program by the device's own clock: what it computed, and how
// long it stood still for a copy that nothing hid.
type clock struct {
	begin, images, forward     driver.Event // a Forward: its start, images there, embeddings there
	gradient, backward, copied driver.Event // a Backward: its start, its end, the last gradients on the host
}

func (c *clock) events() []*driver.Event {
	return []*driver.Event{&c.begin, &c.images, &c.forward, &c.gradient, &c.backward, &c.copied}
}

func newClock(d *driver.Device) (c clock, err error) {
	for _, e := range c.events() {
		if *e, err = d.NewTimer(); err != nil {
			return c, errors.Join(err, c.close())
		}
	}
	return c, nil
}

func (c *clock) close() error {
	var all []error
	for _, e := range c.events() {
		if *e != (driver.Event{}) {
			all = append(all, e.Close())
			*e = driver.Event{}
		}
	}
	return errors.Join(all...)
}

// spent are times of all programs since the engine was made.
type spent struct{ images, forward, loss, backward, gradients time.Duration }

// DeviceTime is what the device has spent since the engine was made, by its
// own clock, of all programs and losses together: gpu_forward, gpu_loss and
// gpu_backward with computation, gpu_images and gpu_gradients with waiting for copies of images
// and of gradients that nothing hid.
func (e *gpu) DeviceTime() map[string]time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return map[string]time.Duration{"gpu_images": e.spent.images, "gpu_forward": e.spent.forward, "gpu_loss": e.spent.loss,
		"gpu_backward": e.spent.backward, "gpu_gradients": e.spent.gradients}
}

// add adds the time between two events.
func add(to *time.Duration, from, until driver.Event) error {
	d, err := until.Since(from)
	*to += d
	return err
}

// forwardDone takes the times of a Forward that has ended.
func (c *clock) forwardDone(s *spent) error {
	return errors.Join(add(&s.images, c.begin, c.images), add(&s.forward, c.images, c.forward))
}

// backwardDone takes the times of a Backward whose gradients are here.
func (c *clock) backwardDone(s *spent) error {
	return errors.Join(add(&s.backward, c.gradient, c.backward), add(&s.gradients, c.backward, c.copied))
}
