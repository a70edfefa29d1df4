package loss

import "mochi/model/engine"

// Mixed is what one query's synthetic points are made of, for tests and tools
// (Queries.Seen).
type Mixed struct {
	Query int   // its place in the batch
	Slots []int // slots of the queue that its hard negatives lie in; where pairs stay inside a shard, of one shard

	First, Second []int32   // of pairs: places in Slots
	Alpha         []float32 // weight of First
	Partner       []int32   // of points mixed with the query: places in Slots
	Beta          []float32 // weight of the query
}

// seen tells whoever asked what a mixture is made of: from is the first of the
// scan's shards that its hard negatives lie in.
func (l *Loss) seen(query, from int, m *engine.Mixture) {
	if l.q.Seen == nil {
		return
	}
	mixed := Mixed{Query: query, First: m.First, Second: m.Second, Alpha: m.Alpha, Partner: m.Partner, Beta: m.Beta}
	for s, picked := range m.From {
		for _, row := range picked.Rows {
			mixed.Slots = append(mixed.Slots, int(row)*l.cfg.Shards+l.shards[from+s].Index)
		}
	}
	l.q.Seen(mixed)
}
