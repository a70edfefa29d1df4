//go:build gpu

package cuda

import (
	"errors"
	"slices"

	"mochi/model/engine/cuda/driver"
)

// segment is a part of backward after which some gradients are final.
type segment struct {
	replay
	ready []int  // parameters, in the order in which they become final
	spans []span // of the flat gradients, that hold them
}

// span is a part of a flat vector, [from, to).
type span struct{ from, to int }

// segmentSize is the number of gradients worth a copy of their own: 1 MB, the
// smallest bucket that anyone sends.
const segmentSize = 1 << 18

// segments cuts backward where enough gradients are final.
func (p *program) segments(l launcher) (segments []segment, err error) {
	params := p.s.net.Params
	var now segment
	size := 0
	for i, o := range p.plan.Backward {
		launches, err := l.step(o)
		if err != nil {
			return nil, err
		}
		now.launches = append(now.launches, launches...)
		for _, param := range o.Ready {
			now.ready = append(now.ready, param)
			for g := range p.plan.Groups {
				from := g*p.s.net.NumParams() + params[param].Offset
				now.spans = append(now.spans, span{from, from + params[param].Size})
			}
			size += params[param].Size
		}
		if size >= segmentSize || i == len(p.plan.Backward)-1 {
			now.spans = merge(now.spans)
			segments = append(segments, now)
			now, size = segment{}, 0
		}
	}
	return segments, nil
}

// merge joins spans that touch, so that they are one copy.
func merge(spans []span) (merged []span) {
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	for _, s := range spans {
		if n := len(merged); n > 0 && merged[n-1].to == s.from {
			merged[n-1].to = s.to
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

// download brings gradients to the host on a stream of its own while backward
// goes on.
type download struct {
	pinned driver.Pinned  // flat gradients, group after group
	final  []driver.Event // of a segment: its gradients are final
	here   []driver.Event // of a segment: they are in pinned memory
}

func newDownload(s *state, grads, segments int) (d *download, err error) {
	d = &download{}
	if d.pinned, err = s.e.device.AllocPinned(grads); err != nil {
		return d, err
	}
	for range segments {
		for _, events := range []*[]driver.Event{&d.final, &d.here} {
			e, err := s.e.device.NewEvent()
			if err != nil {
				return d, err
			}
			*events = append(*events, e)
		}
	}
	return d, nil
}

func (d *download) close() error {
	all := []error{d.pinned.Release()}
	for _, e := range slices.Concat(d.final, d.here) {
		all = append(all, e.Close())
	}
	return errors.Join(all...)
}

func (p *program) Backward(dEmbeddings, grads []float32, ready func(param int)) error {
	if err := p.calls.Backward(p.closed, p.pending, dEmbeddings, grads); err != nil {
		return err
	}
	p.pending = false
	if err := p.enqueue(dEmbeddings); err != nil {
		return p.calls.Fail("backward", err)
	}
	if ready == nil {
		ready = func(int) {}
	}
	for _, param := range p.plan.Unused {
		t := p.s.net.Params[param]
		for at := t.Offset; at < len(grads); at += p.s.net.NumParams() {
			clear(grads[at : at+t.Size])
		}
		ready(param)
	}
	pinned := p.download.pinned.Floats(len(grads))
	for i, s := range p.backward {
		if err := p.wait(p.download.here[i].Synchronize); err != nil {
			return p.calls.Fail("backward", errors.Join(err, p.wait(p.s.e.work.Synchronize), p.wait(p.s.e.copies.Synchronize)))
		}
		for _, at := range s.spans {
			copy(grads[at.from:at.to], pinned[at.from:at.to])
		}
		for _, param := range s.ready {
			ready(param)
		}
	}
	return p.took()
}

// took adds the times of a Backward that has ended.
func (p *program) took() error {
	leave, err := p.s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.clock.backwardDone(&p.s.e.spent); err != nil {
		return p.calls.Fail("backward", err)
	}
	return nil
}

// enqueue puts all of backward into the work stream, and the copies of its
// gradients into the other, each behind the segment that it needs.
func (p *program) enqueue(dEmbeddings []float32) error {
	leave, err := p.s.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	copy(p.dOutput.Floats(len(dEmbeddings)), dEmbeddings)
	work, copies, d := p.s.e.work, p.s.e.copies, p.download
	put := func() error {
		if err := p.clock.gradient.Record(work); err != nil {
			return err
		}
		for i := range p.backward {
			s := &p.backward[i]
			if err := p.s.e.put(&s.replay); err != nil {
				return err
			}
			if i == len(p.backward)-1 {
				if err := p.clock.backward.Record(work); err != nil {
					return err
				}
			}
			if err := errors.Join(d.final[i].Record(work), copies.Wait(d.final[i])); err != nil {
				return err
			}
			for _, at := range s.spans {
				if err := copies.Download(d.pinned.Floats(at.to)[at.from:], p.gradients().Add(4*at.from)); err != nil {
					return err
				}
			}
			if i == len(p.backward)-1 {
				if err := p.clock.copied.Record(copies); err != nil {
					return err
				}
			}
			if err := d.here[i].Record(copies); err != nil {
				return err
			}
		}
		return nil
	}
	if err := put(); err != nil {
		return errors.Join(err, work.Synchronize(), copies.Synchronize()) // nothing may go on behind the caller's back
	}
	return nil
}

// wait waits for the device without holding the engine: ready may use it.
func (p *program) wait(synchronize func() error) error {
	leave, err := p.s.e.device.Enter()
	if err != nil {
		return err
	}
	defer leave()
	return synchronize()
}
