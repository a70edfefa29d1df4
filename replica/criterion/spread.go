package criterion

import (
	"context"
	"fmt"

	"mochi/allreduce"
	"mochi/model/engine"
	"mochi/model/loss"
	"mochi/replica/queue"
)

// firstTag and the two after it are of wave 0; no other collective of a step has
// a bucket from here on.
const firstTag = 1 << 26

// Deal is who computes and who holds what in a round.
type Deal struct {
	Rank    int
	Names   []string // of the members, by rank, for messages
	Units   [][]Rows // by rank; all of the same size
	Holders [][]int  // ranks by shard, the owner first (protocol.Round.Holders)
	After   int      // waves of the same step that another criterion has had before
}

// Spread is the loss against a queue whose shards are spread over the members of
// a round. See the package comment.
type Spread struct {
	shape Shape
	deal  Deal
	ring  Ring
	loss  *loss.Loss
	queue *queue.Queue
	hard  int // N, of the whole queue
	waves int

	owned [][]int // shards that each rank evaluates, ascending
	seats []seat  // of each shard in that
	most  []int   // hard negatives that a rank has at most, of one query

	// Of the step and the wave in hand.
	step    Step
	queries []float32 // of the wave, by rank
	all     loss.Queries
	at      int // where this member's begin; −1: it has none
	losses  Losses

	values, parts []float32
	counts        []int // for a collective: what each rank contributes
	begins        []int // for a collective: where each rank's begin
	views         [][]float32
}

// seat is the owner of a shard and the shard's index among those that it owns.
type seat struct{ rank, index int }

// NewSpread makes the criterion of a round. hard is N, the hard negatives that
// are mixed from; 0: none.
func NewSpread(l *loss.Loss, q *queue.Queue, ring Ring, deal Deal, hard int, shape Shape) *Spread {
	world := len(deal.Units)
	c := &Spread{
		shape: shape, deal: deal, ring: ring, loss: l, queue: q, hard: hard,
		owned: make([][]int, world), most: make([]int, world),
		seats: make([]seat, len(deal.Holders)), views: make([][]float32, len(deal.Holders)),
		counts: make([]int, world), begins: make([]int, world),
	}
	for _, units := range deal.Units {
		c.waves = max(c.waves, len(units))
	}
	if own := deal.Units[deal.Rank]; len(own) > 0 {
		c.losses = shape.results(own[0].Hi - own[0].Lo)
	}
	for v, holders := range deal.Holders {
		owner := holders[0]
		c.seats[v] = seat{owner, len(c.owned[owner])}
		c.owned[owner] = append(c.owned[owner], v)
		rows := engine.ShardRows(q.Len(), q.Shards(), v)
		c.most[owner] = min(c.most[owner]+rows, hard)
	}
	return c
}

// Begin starts a step.
func (c *Spread) Begin(step Step) (waves int) {
	c.step = step
	return c.waves
}

// Queries begins a wave: it makes room for the queries of all members and
// returns where this member's go.
func (c *Spread) Queries(wave int) []float32 {
	var own []float32
	c.at = -1
	n, d := 0, c.shape.Dim
	c.all.Samples, c.all.Labels = c.all.Samples[:0], c.all.Labels[:0]
	for rank, units := range c.deal.Units {
		c.counts[rank] = 0
		if wave >= len(units) {
			continue
		}
		rows := units[wave]
		if rank == c.deal.Rank {
			c.at = n
		}
		c.all.Samples = append(c.all.Samples, c.step.Samples[rows.Lo:rows.Hi]...)
		if c.step.Labels != nil {
			c.all.Labels = append(c.all.Labels, c.step.Labels[rows.Lo:rows.Hi]...)
		}
		c.counts[rank] = (rows.Hi - rows.Lo) * d
		n += rows.Hi - rows.Lo
	}
	resize(&c.queries, n*d)
	c.all.Q, c.all.Step, c.all.Mix = c.queries, c.step.Number, c.step.Mix
	if c.step.Labels == nil {
		c.all.Labels = nil
	}
	if c.at >= 0 {
		own = c.queries[c.at*d : c.at*d+c.counts[c.deal.Rank]]
	}
	return own
}

// Evaluate exchanges queries and parts with all members and folds the parts of
// this member's queries.
func (c *Spread) Evaluate(ctx context.Context, wave int) (Losses, error) {
	if err := c.evaluate(ctx, wave); err != nil {
		return Losses{}, fmt.Errorf("exchange of wave %d of step %d: %w", wave, c.step.Number, err)
	}
	if c.at < 0 {
		return Losses{}, nil
	}
	rows, d, width := c.deal.Units[c.deal.Rank][wave], c.shape.Dim, c.loss.PartialFloats()
	b := rows.Hi - rows.Lo
	for v := range c.views {
		c.views[v] = c.views[v][c.at*width : (c.at+b)*width]
	}
	err := c.loss.FoldGroups(loss.Fold{
		Q: c.queries[c.at*d : (c.at+b)*d], Pos: c.step.Keys[rows.Lo*d : rows.Hi*d],
		Samples: c.step.Samples[rows.Lo:rows.Hi], Scale: 1 / float64(c.shape.Batch), Partials: c.views,
	}, c.losses.Groups)
	return c.losses, err
}

// evaluate leaves the parts of all shards in views, each [queries, PartialFloats].
func (c *Spread) evaluate(ctx context.Context, wave int) error {
	tag := allreduce.Tag{Step: uint64(c.step.Number), Bucket: uint32(firstTag + 3*(c.deal.After+wave))}
	if err := c.ring.AllGather(ctx, tag, c.queries, c.counts); err != nil {
		return fmt.Errorf("gather the queries: %w", err)
	}
	n, own := len(c.all.Samples), c.owned[c.deal.Rank]
	if len(own) > 0 {
		if err := c.loss.Scan(c.all, c.shards(own)); err != nil {
			return err
		}
	}
	var starts []int32
	if c.step.Mix && c.hard > 0 {
		hardTag := tag
		hardTag.Bucket++
		hard, err := c.gatherHard(ctx, hardTag, n)
		if err != nil {
			return fmt.Errorf("gather the hardest: %w", err)
		}
		starts = loss.Threshold(c.hard, c.queue.Shards(), n, hard)
	}
	if len(own) > 0 {
		if err := c.loss.Mix(starts); err != nil {
			return err
		}
	}

	width := n * c.loss.PartialFloats()
	resize(&c.parts, c.layOut(func(rank int) int { return len(c.owned[rank]) * width }))
	if len(own) > 0 {
		copy(c.parts[c.begins[c.deal.Rank]:], c.loss.Partials())
	}
	tag.Bucket += 2
	if err := c.ring.AllGather(ctx, tag, c.parts, c.counts); err != nil {
		return fmt.Errorf("gather the parts: %w", err)
	}
	for v, s := range c.seats {
		from := c.begins[s.rank] + s.index*width
		c.views[v] = c.parts[from : from+width]
	}
	return nil
}

// layOut sets counts to what each rank contributes to a collective and begins to
// where it lies, and returns the length of the whole.
func (c *Spread) layOut(length func(rank int) int) (total int) {
	for rank := range c.owned {
		c.begins[rank], c.counts[rank] = total, length(rank)
		total += c.counts[rank]
	}
	return total
}

// gatherHard tells everybody how similar everybody's hardest are, of n queries.
// A query's entry of a rank is one count a shard, and room for as many values as
// there can be.
func (c *Spread) gatherHard(ctx context.Context, tag allreduce.Tag, n int) ([]loss.Hard, error) {
	resize(&c.values, c.layOut(func(rank int) int { return n * (len(c.owned[rank]) + c.most[rank]) }))
	if len(c.owned[c.deal.Rank]) > 0 {
		c.writeHard(c.values[c.begins[c.deal.Rank]:], n)
	}
	if err := c.ring.AllGather(ctx, tag, c.values, c.counts); err != nil {
		return nil, err
	}
	var all []loss.Hard
	for rank, shards := range c.owned {
		if len(shards) == 0 {
			continue
		}
		hard, err := c.readHard(rank, n)
		if err != nil {
			return nil, err
		}
		all = append(all, hard)
	}
	return all, nil
}

// writeHard writes the entries of this member's shards.
func (c *Spread) writeHard(entry []float32, n int) {
	hard, shards, most := c.loss.Hardest(), len(c.owned[c.deal.Rank]), c.most[c.deal.Rank]
	values := hard.Values
	for i := range n {
		have := 0
		for s, count := range hard.Counts[i*shards : (i+1)*shards] {
			entry[s] = float32(count)
			have += int(count)
		}
		copy(entry[shards:], values[:have])
		clear(entry[shards+have : shards+most])
		values = values[have:]
		entry = entry[shards+most:]
	}
}

// readHard reads the entries of a rank's shards.
func (c *Spread) readHard(rank, n int) (loss.Hard, error) {
	shards, most := len(c.owned[rank]), c.most[rank]
	hard := loss.Hard{Shards: c.owned[rank]}
	entry := c.values[c.begins[rank]:]
	for range n {
		have := 0
		for _, count := range entry[:shards] {
			if !(count >= 0) || have+int(count) > most {
				return loss.Hard{}, fmt.Errorf("%s says it has %v hard negatives, of at most %d", c.deal.Names[rank], count, most)
			}
			hard.Counts = append(hard.Counts, int32(count))
			have += int(count)
		}
		hard.Values = append(hard.Values, entry[shards:shards+have]...)
		entry = entry[shards+most:]
	}
	return hard, nil
}

// shards are some of those held, as the loss wants them.
func (c *Spread) shards(wanted []int) []loss.Shard {
	var list []loss.Shard
	next := 0
	for _, shard := range AppendShards(nil, c.queue, c.step.Labels != nil) {
		if next < len(wanted) && shard.Index == wanted[next] {
			list = append(list, shard)
			next++
		}
	}
	return list
}

func resize(s *[]float32, n int) {
	if cap(*s) < n {
		*s = make([]float32, n)
	}
	*s = (*s)[:n]
}
