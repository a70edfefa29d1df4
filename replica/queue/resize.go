package queue

// Saved is a queue as a checkpoint holds it.
type Saved struct {
	Keys   []float32 // [K, d] row-major, slot i at i·d
	Labels []int32   // [K], or nil: all unlabelled
	Ptr    int       // slot of the next key
	Filled int64     // keys ever enqueued
}

// Resized is a queue of k slots with the newest keys of s, as many as there
// are and fit: the oldest of them in slot 0, Ptr behind the newest. Slots that
// are left are as Init(seed) makes them. Filled counts from the oldest kept.
// s is only read. The caller has checked lengths (as Set does).
func (s Saved) Resized(k, dim int, seed uint64) Saved {
	old := len(s.Keys) / dim
	kept := int(min(s.Filled, int64(old), int64(k)))
	out := Saved{Keys: make([]float32, k*dim), Labels: make([]int32, k), Ptr: kept % k, Filled: int64(kept)}
	for i := range k {
		key := out.Keys[i*dim : (i+1)*dim]
		out.Labels[i] = Unlabelled
		if i >= kept {
			randomKey(seed, i, key)
			continue
		}
		from := (s.Ptr - kept + i + old) % old
		copy(key, s.Keys[from*dim:(from+1)*dim])
		if s.Labels != nil {
			out.Labels[i] = s.Labels[from]
		}
	}
	return out
}
