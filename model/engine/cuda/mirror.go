//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"slices"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
)

// mirror is the device's copy of the shards that are scanned: one after the
// other in the order of their numbers, each in pitch columns, zeros behind its
// rows. Rows whose checksum is what it was are not copied again. What a fault
// changes on the device itself nobody sees (its memory has ECC): the queue's
// audits read the host's copy.
type mirror struct {
	dim, pitch int
	kind       kernel.Type // as stored
	keys       driver.Memory
	labels     driver.Memory // [columns]; nothing without class oracle
	slots      []slot        // as many as there is room for

	stage  driver.Memory // rows on their way, see staging
	pinned driver.Pinned
}

// slot is what pitch columns hold.
type slot struct {
	shard int      // −1: nothing
	sums  []uint64 // of the rows; none: unknown
	// Classes are there too, as sums say: not if rows came without them.
	labelled bool
}

// So much of the keys is on its way at a time; their columns and classes are
// sent whole.
const (
	stageBytes = 1 << 20
	stageRows  = 1024
)

// staging is where rows on their way lie, in pinned memory as on the device:
// columns, classes, keys.
func (m *mirror) staging() (rows, classes, keys, bytes int) {
	rows = min(max(stageBytes/m.row(), 1), stageRows)
	classes = array(4 * rows)
	keys = 2 * classes
	return rows, classes, keys, keys + rows*m.row()
}

// row is the bytes of a key.
func (m *mirror) row() int { return m.dim * m.kind.Size() }

// column is where a slot's keys begin.
func (m *mirror) column(slot int) driver.Pointer { return m.keys.Add(slot * m.pitch * m.row()) }

// bring makes slots 0, 1, … hold the shards. Nothing on the streams uses the
// mirror when it is called.
func (m *mirror) bring(e *gpu, shards []engine.Shard) error {
	err := m.try(e, shards)
	if err != nil {
		for i := range m.slots {
			m.slots[i] = slot{shard: -1} // whatever came before it failed
		}
	}
	return err
}

func (m *mirror) try(e *gpu, shards []engine.Shard) error {
	kind, labelled := kindOf(shards), shards[0].Labels != nil
	if kind != m.kind || len(shards) > len(m.slots) || labelled && m.labels.Bytes == 0 {
		if err := m.allocate(e, kind, len(shards), labelled || m.labels.Bytes > 0); err != nil {
			return err
		}
	}
	for at, s := range shards {
		if m.slots[at].shard == s.Index {
			continue
		}
		m.slots[at] = slot{shard: s.Index}
		if err := e.work.Zero(m.column(at), m.pitch*m.row()); err != nil {
			return err
		}
	}
	rows, _, _, _ := m.staging()
	staged := 0
	send := func() error {
		n := staged
		staged = 0
		return m.send(e, n, labelled)
	}
	for at := range shards {
		shard, known := &shards[at], &m.slots[at]
		n := rowsOf(shard, m.dim)
		same := len(known.sums) == n && shard.Sums != nil && (known.labelled || !labelled)
		if labelled {
			known.labelled = true
		}
		for r := range n {
			if same && known.sums[r] == shard.Sums[r] {
				continue
			}
			if staged == rows {
				if err := errors.Join(send(), e.work.Synchronize()); err != nil {
					return err
				}
			}
			m.put(staged, at*m.pitch+r, shard, r)
			staged++
			known.labelled = labelled
		}
		known.sums = append(known.sums[:0], shard.Sums...)
	}
	if staged > 0 {
		return send()
	}
	return nil
}

// kindOf is how shards are stored on the device: as they are, in fp32 where they
// differ.
func kindOf(shards []engine.Shard) kernel.Type {
	for _, s := range shards {
		if s.BF16 == nil {
			return kernel.F32
		}
	}
	return kernel.BF16
}

// rowsOf is how many rows a shard's slices hold.
func rowsOf(s *engine.Shard, dim int) int {
	values := max(len(s.Keys), len(s.BF16))
	stride := max(s.Stride, 1) * dim
	return (values - dim + stride) / stride
}

// put stages a row for a column.
func (m *mirror) put(i, column int, s *engine.Shard, r int) {
	_, classes, keys, _ := m.staging()
	driver.View[int32](m.pinned, 0, i+1)[i] = int32(column)
	if s.Labels != nil {
		driver.View[int32](m.pinned, classes, i+1)[i] = s.Labels[r]
	}
	at, to := s.Row(r, m.dim), keys+i*m.row()
	switch {
	case m.kind == kernel.BF16:
		copy(driver.View[uint16](m.pinned, to, m.dim), s.BF16[at:])
	case s.BF16 == nil:
		copy(driver.View[float32](m.pinned, to, m.dim), s.Keys[at:])
	default: // among others in fp32
		for x, h := range s.BF16[at : at+m.dim] {
			driver.View[uint32](m.pinned, to, m.dim)[x] = uint32(h) << 16
		}
	}
}

// send copies n staged rows to their columns.
func (m *mirror) send(e *gpu, n int, labelled bool) error {
	_, classes, keys, _ := m.staging()
	if err := e.work.Send(m.stage.Pointer, m.pinned, 0, (keys+n*m.row()+3)/4*4); err != nil {
		return err
	}
	given, labels := driver.Pointer(0), driver.Pointer(0)
	if labelled {
		given, labels = m.stage.Add(classes), m.labels.Pointer
	}
	return e.kernels.Launch(e.work, kernel.Name("contrast_put", m.kind), kernel.PerRow(n),
		int32(n), int32(m.dim), m.stage.Add(keys), m.stage.Pointer, given, m.keys.Pointer, labels)
}

func (m *mirror) allocate(e *gpu, kind kernel.Type, shards int, labelled bool) (err error) {
	if err := m.release(); err != nil {
		return err
	}
	m.kind = kind
	if m.keys, err = e.device.Alloc(m.bytes(shards)); err != nil {
		return err
	}
	if labelled {
		if m.labels, err = e.device.Alloc(4 * shards * m.pitch); err != nil {
			return err
		}
	}
	_, _, _, bytes := m.staging()
	if m.stage, err = e.device.Alloc(bytes + 4); err != nil {
		return err
	}
	if m.pinned, err = e.device.AllocPinned(bytes/4 + 1); err != nil {
		return err
	}
	m.slots = slices.Repeat([]slot{{shard: -1}}, shards)
	return nil
}

// bytes are those of the keys of so many shards.
func (m *mirror) bytes(shards int) int { return shards * m.pitch * m.row() }

// allocated is the device memory that it has.
func (m *mirror) allocated() int { return m.keys.Bytes + m.labels.Bytes + m.stage.Bytes }

func (m *mirror) release() error {
	m.slots = nil
	if err := errors.Join(m.keys.Release(), m.labels.Release(), m.stage.Release(), m.pinned.Release()); err != nil {
		return fmt.Errorf("free the keys: %w", err)
	}
	return nil
}
