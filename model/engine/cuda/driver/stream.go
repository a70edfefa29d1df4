//go:build gpu

package driver

import (
	"fmt"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// Stream is a queue of work on the device. It does not wait for the default
// stream.
type Stream struct{ s cu.Stream }

// NewStream makes a stream.
func (d *Device) NewStream() (Stream, error) {
	s, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return Stream{}, fmt.Errorf("make a stream: %w", err)
	}
	return Stream{s}, nil
}

// Handle is the stream for a C library.
func (s Stream) Handle() unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&s.s)) }

// Synchronize waits for all work of the stream, and reports what failed in it.
func (s Stream) Synchronize() error {
	if err := s.s.Synchronize(); err != nil {
		return fmt.Errorf("wait for the device: %w", err)
	}
	return nil
}

// Upload copies values to the device in the stream's order. src must stay as
// it is until the copy is done; the copy is asynchronous if it is pinned.
func (s Stream) Upload(dst Pointer, src []float32) error {
	if len(src) == 0 {
		return nil
	}
	return copied("to", len(src), cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&src[0]), int64(4*len(src)), s.s))
}

// Download copies values from the device in the stream's order.
func (s Stream) Download(dst []float32, src Pointer) error {
	if len(dst) == 0 {
		return nil
	}
	return copied("from", len(dst), cu.MemcpyDtoHAsync(unsafe.Pointer(&dst[0]), cu.DevicePtr(src), int64(4*len(dst)), s.s))
}

// UploadBytes copies bytes to the device, and returns when they are there.
func (s Stream) UploadBytes(dst Pointer, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	if err := cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&src[0]), int64(len(src)), s.s); err != nil {
		return fmt.Errorf("copy %d bytes to the device: %w", len(src), err)
	}
	return s.Synchronize()
}

// Send copies bytes of pinned memory, from byte at on, to the device in the
// stream's order, and returns at once.
func (s Stream) Send(dst Pointer, from Pinned, at, bytes int) error {
	return s.Upload(dst, View[float32](from, at, bytes/4))
}

// Receive is the other way.
func (s Stream) Receive(to Pinned, at int, src Pointer, bytes int) error {
	return s.Download(View[float32](to, at, bytes/4), src)
}

func copied(where string, n int, err error) error {
	if err != nil {
		return fmt.Errorf("copy %d values %s the device: %w", n, where, err)
	}
	return nil
}

// Zero clears bytes, a multiple of 4, in the stream's order.
func (s Stream) Zero(p Pointer, bytes int) error {
	if bytes == 0 {
		return nil
	}
	if err := cu.MemsetD32Async(cu.DevicePtr(p), 0, int64(bytes/4), s.s); err != nil {
		return fmt.Errorf("clear %d bytes: %w", bytes, err)
	}
	return nil
}

// Wait lets the stream's next work wait for the event.
func (s Stream) Wait(e Event) error {
	if err := s.s.Wait(e.e, 0); err != nil {
		return fmt.Errorf("wait for an event: %w", err)
	}
	return nil
}

// Close destroys the stream.
func (s *Stream) Close() error { return s.s.Destroy() }

// Copy copies bytes from one place on the device to another in the stream's
// order.
func (s Stream) Copy(dst, src Pointer, bytes int) error {
	if bytes == 0 {
		return nil
	}
	if err := cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), int64(bytes), s.s); err != nil {
		return fmt.Errorf("copy %d bytes on the device: %w", bytes, err)
	}
	return nil
}

// Event marks a point in a stream.
type Event struct{ e cu.Event }

// NewEvent makes an event without a clock.
func (d *Device) NewEvent() (Event, error) {
	e, err := cu.MakeEvent(cu.DisableTiming)
	if err != nil {
		return Event{}, fmt.Errorf("make an event: %w", err)
	}
	return Event{e}, nil
}

// NewTimer makes an event with a clock, for Since.
func (d *Device) NewTimer() (Event, error) {
	e, err := cu.MakeEvent(cu.DefaultEvent)
	if err != nil {
		return Event{}, fmt.Errorf("make an event with a clock: %w", err)
	}
	return Event{e}, nil
}

// Since is the time from start to e, by the device's clock; of timers that have
// both happened. Resolution is about half a microsecond.
func (e Event) Since(start Event) (time.Duration, error) {
	ms, err := start.e.Elapsed(e.e)
	if err != nil {
		return 0, fmt.Errorf("time between two events: %w", err)
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}

// Record marks the end of all work that the stream has now.
func (e Event) Record(s Stream) error {
	if err := e.e.Record(s.s); err != nil {
		return fmt.Errorf("record an event: %w", err)
	}
	return nil
}

// Synchronize waits on the host until the event has happened.
func (e Event) Synchronize() error {
	if err := e.e.Synchronize(); err != nil {
		return fmt.Errorf("wait for an event: %w", err)
	}
	return nil
}

// Close destroys the event.
func (e *Event) Close() error { return cu.DestroyEvent(&e.e) }
