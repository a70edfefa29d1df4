package replica

import (
	"context"
	"fmt"

	"mochi/allreduce"
	"mochi/replica/input"
	"mochi/replica/reduction"
)

// keys are those of the step in hand, made once per session.
type keys struct {
	shuffled []float32 // [B, d] in the order they were computed, by rank
	ordered  []float32 // [B, d] in global-batch order
}

func newKeys(batch, dim int) keys {
	return keys{make([]float32, batch*dim), make([]float32, batch*dim)}
}

// of is those of the unit-th of so many units of a member whose keys begin at at.
func (k *keys) of(unit, at, size int) []float32 {
	if len(k.shuffled) == 0 { // a job without keys
		return nil
	}
	return k.shuffled[at+unit*size:][:size]
}

// encodeKeys encodes the key views of this member's units.
func (s contrastive) encodeKeys(ctx context.Context, p *party, batch *input.Step, terms []reduction.Terms) error {
	at := p.keysAt()
	size := s.model.atOnce * s.job.BNGroup * s.job.Dim
	for i, first := range p.own() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.model.moco.Keys(batch.Key[i], s.keys.shuffled[at:at+size], terms[i].Key); err != nil {
			return fmt.Errorf("key forward of %s at step %d: %w", s.model.unit(first), s.at.step+1, err)
		}
		at += size
		p.did()
	}
	return nil
}

// gather gathers the keys of the step in hand.
func (s contrastive) gather(ctx context.Context, p *party, batch *input.Step) error {
	return s.keys.gather(ctx, p, s.at.step+1, s.job.BNGroup, batch.Shuffle)
}

// gather brings everybody's keys here and undoes ShuffleBN: afterwards ordered
// holds those of the whole batch. g is the size of a group, shuffle says which
// sample each position of the permuted batch is.
func (k *keys) gather(ctx context.Context, p *party, step int64, g int, shuffle []int) error {
	tag := allreduce.Tag{Step: uint64(step), Bucket: keysTag}
	if err := p.ring.AllGather(ctx, tag, k.shuffled, p.counts); err != nil {
		return fmt.Errorf("gather the keys of step %d: %w", step, err)
	}
	d := len(k.ordered) / len(shuffle)
	for slot, group := range p.order {
		for i := range g {
			from, to := slot*g+i, shuffle[group*g+i]
			copy(k.ordered[to*d:(to+1)*d], k.shuffled[from*d:(from+1)*d])
		}
	}
	return nil
}
