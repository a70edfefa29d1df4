package data

import (
	"context"
	"fmt"
	"slices"

	"mochi/replica/data/remote"
)

// openRemote opens shards that a web server or S3 has.
func openRemote(pattern string, o Options) (*Set, error) {
	o.Remote.Progress = o.Progress
	store, err := remote.Open(o.Remote)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	train, test, err := store.Find(ctx, pattern)
	if err != nil {
		return nil, err
	}
	scanned, err := store.Index(ctx, slices.Concat(train, test))
	if err != nil {
		return nil, err
	}
	shown := remote.Shown(pattern)
	set, err := openScanned(shown, scanned, faultsOf(scanned), len(train), o, Account{Unit: "members of shards"})
	if err != nil {
		return nil, err
	}
	set.stores = []*remote.Store{store}
	set.Info.Shards = remote.Pin(train)
	set.Announce += fmt.Sprintf("\ncached in %s (--cache-dir), which holds %s at most (--cache-bytes)", store.Folder(), Bytes(store.Limit()))
	return set, nil
}

// Close ends what is fetched in the background; the set can be read no more. It is for
// those who go on: a process that ends need not.
func (s *Set) Close() {
	for _, store := range s.stores {
		store.Close()
	}
}

// Shown is the path of a data set, or its address, as it may be shown.
func Shown(path string) string {
	if remote.Is(path) {
		return remote.Shown(path)
	}
	return path
}

// Ahead tells a data set whose samples come from elsewhere which of them will be read,
// so that they are there in time. For other data sets it does nothing. One goroutine
// uses it.
type Ahead struct {
	of   fetching // nil: nothing to do
	told []told   // batches that were announced and not yet begun, in order
	next int64    // the first batch that was not
}

type told struct{ batch, bytes int64 }

// How far ahead samples are asked for at most: steps of a few samples are short.
const (
	aheadBatches = 64
	aheadSamples = 4096
	aheadLeast   = 4 // batches, whatever their samples are
)

// fetching is a data set some of whose samples may come from elsewhere.
type fetching interface {
	store() *remote.Store // nil: none do
	need(i int) (need remote.Need, elsewhere bool)
}

// NewAhead makes an Ahead of a data set.
func NewAhead(d Dataset) *Ahead {
	if storeOf(d) == nil {
		return &Ahead{}
	}
	return &Ahead{of: d.(fetching)}
}

// Keep has batch at, and those after it as far as there is room, fetched: the samples of
// a batch, relative to at, are what samples returns. The error is a *remote.RoomError
// where the cache cannot hold one batch.
func (a *Ahead) Keep(at int64, samples func(further int) []int) error {
	if a.of == nil {
		return nil
	}
	for len(a.told) > 0 && a.told[0].batch < at {
		a.told = a.told[1:]
	}
	if len(a.told) == 0 {
		a.next = at
	}
	var bytes int64
	for _, t := range a.told {
		bytes += t.bytes
	}
	store, many := a.of.store(), 0
	for a.next < at+aheadBatches {
		wanted := samples(int(a.next - at))
		if many = max(many, len(wanted)); a.next-at >= aheadLeast && int(a.next-at)*many > aheadSamples {
			return nil
		}
		var needs []remote.Need
		for _, sample := range wanted {
			if need, elsewhere := a.of.need(sample); elsewhere {
				needs = append(needs, need)
			}
		}
		needed, err := store.Blocks(needs, fmt.Sprintf("a step of %s", plural(len(wanted), "image", "images")))
		if err != nil {
			return err
		}
		if bytes += needed; len(a.told) > 0 && bytes > store.Limit()/2 {
			return nil
		}
		store.Ahead(needs)
		a.told = append(a.told, told{a.next, needed})
		a.next++
	}
	return nil
}

// Reset forgets what was announced.
func (a *Ahead) Reset() { a.told = nil }

func (s *tarSplit) store() *remote.Store {
	if len(s.samples) == 0 {
		return nil
	}
	if o, is := s.files.From(0).(*remote.Object); is {
		return o.Store()
	}
	return nil
}

func (s *tarSplit) need(i int) (remote.Need, bool) {
	e := s.samples[i]
	o, is := s.files.From(int(e.shard)).(*remote.Object)
	return remote.Need{Object: o, Offset: e.offset, Length: e.length}, is
}

func storeOf(d Dataset) *remote.Store {
	if of, is := d.(fetching); is {
		return of.store()
	}
	return nil
}

func needOf(d Dataset, i int) (remote.Need, bool) {
	if of, is := d.(fetching); is {
		return of.need(i)
	}
	return remote.Need{}, false
}

func (s subset) store() *remote.Store           { return storeOf(s.Dataset) }
func (s subset) need(i int) (remote.Need, bool) { return needOf(s.Dataset, s.at(i)) }

func (c chosen) store() *remote.Store           { return storeOf(c.Dataset) }
func (c chosen) need(i int) (remote.Need, bool) { return needOf(c.Dataset, int(c.at[i])) }

func (l *Lenient) store() *remote.Store           { return storeOf(l.Dataset) }
func (l *Lenient) need(i int) (remote.Need, bool) { return needOf(l.Dataset, i) }

// store is that of the first source that has one: they share a cache.
func (u *united) store() *remote.Store {
	for _, d := range u.parts {
		if s := storeOf(d); s != nil {
			return s
		}
	}
	return nil
}

func (u *united) need(i int) (remote.Need, bool) {
	d, at := u.source(i)
	return needOf(d, at)
}
