//go:build gpu

package cuda

import (
	"errors"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/plan"
)

// lars is an update with layer-wise rates, in three launches: norms of pieces,
// rates of tensors, and the update itself. Nothing of it leaves the device. Its
// tables are made by the first such update: a few KB.
type lars struct {
	pieces, tensors         int           // how many
	pieceTable, tensorTable driver.Memory // kernel.Piece, kernel.Tensor
	sums, rates             driver.Memory // [pieces][2] double, [tensors]
}

func (l *lars) open(s *state) (err error) {
	pieces, tensors := plan.Pieces(s.net)
	for _, m := range []struct {
		to    *driver.Memory
		bytes int
	}{{&l.pieceTable, len(bytesOf(pieces))}, {&l.tensorTable, len(bytesOf(tensors))}, {&l.sums, 16 * len(pieces)}, {&l.rates, 4 * len(tensors)}} {
		if m.to.Pointer != 0 {
			continue // an attempt before this one
		}
		if *m.to, err = s.e.device.Alloc(m.bytes); err != nil {
			return err
		}
	}
	if err := errors.Join(s.e.work.UploadBytes(l.pieceTable.Pointer, bytesOf(pieces)), s.e.work.UploadBytes(l.tensorTable.Pointer, bytesOf(tensors))); err != nil {
		return err
	}
	l.pieces, l.tensors = len(pieces), len(tensors)
	return nil
}

// step puts an update into the work stream.
func (l *lars) step(s *state, u engine.Update) error {
	if l.pieces == 0 {
		if err := l.open(s); err != nil {
			return err
		}
	}
	query := s.device[engine.QueryParams].Pointer
	launch := func(name string, blocks int, args ...any) error {
		return s.e.kernels.Launch(s.e.work, name, kernel.Pieces(blocks), args...)
	}
	if err := launch("lars_norms", l.pieces, l.pieceTable.Pointer, l.tensorTable.Pointer, u.WeightDecay, query, s.grads.Pointer, l.sums.Pointer); err != nil {
		return err
	}
	if err := launch("lars_rates", l.tensors, l.tensorTable.Pointer, l.sums.Pointer, u.Trust, l.rates.Pointer); err != nil {
		return err
	}
	return launch("lars_update", l.pieces, l.pieceTable.Pointer, l.tensorTable.Pointer, l.rates.Pointer,
		u.LR, u.SGDMomentum, u.WeightDecay, u.EncoderMomentum,
		s.grads.Pointer, s.device[engine.Momentum].Pointer, query, s.device[engine.KeyParams].Pointer)
}

func (l *lars) release() error {
	return errors.Join(l.pieceTable.Release(), l.tensorTable.Release(), l.sums.Release(), l.rates.Release())
}
