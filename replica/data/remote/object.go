package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Object is a shard. It is an io.ReaderAt once it is indexed.
type Object struct {
	store *Store
	at    location
	meta  meta
	key   string              // of the cache
	sums  [][sha256.Size]byte // of the blocks; nil until it is indexed
	whole atomic.Bool         // its server knows no parts

	mu      sync.Mutex
	flights map[int]*flight
	blocks  []blockState
	latest  int // block that was fetched last because it was read
}

// blockState is what is known of a block.
type blockState struct {
	whole   bool      // what the cache has of it was checked
	touched time.Time // when its use was written down
}

// flight is a block on its way.
type flight struct {
	done chan struct{}
	data []byte
	err  error
}

// Name is the shard's address for people.
func (o *Object) Name() string { return o.at.String() }

// Size is its length, bytes.
func (o *Object) Size() int64 { return o.meta.size }

// Digest is that of its content: the SHA-256 of the digests of its blocks.
func (o *Object) Digest() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "blocks of %d in %d\n", o.store.o.Block, o.meta.size)
	for _, sum := range o.sums {
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// count is how many blocks it has.
func (o *Object) count() int { return int((o.meta.size + o.store.o.Block - 1) / o.store.o.Block) }

// length is that of block n.
func (o *Object) length(n int) int64 {
	return min(o.store.o.Block, o.meta.size-int64(n)*o.store.o.Block)
}

// known takes what a server says first.
func (o *Object) known(m meta) {
	o.meta = m
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%d\n%s\n%d\n", o.at, m.size, m.version, o.store.o.Block)
	o.key = hex.EncodeToString(h.Sum(nil)[:16])
	o.flights, o.blocks, o.latest = make(map[int]*flight), make([]blockState, o.count()), -2
}

// same compares what a server says with what it said first. Once the digests of blocks
// are known, they decide whether the content is another, not the version.
func (o *Object) same(m meta) error {
	switch {
	case o.key == "":
		return nil
	case m.size != o.meta.size:
		return &ChangedError{o.Name(), fmt.Sprintf("it had %d bytes and has %d", o.meta.size, m.size)}
	case m.version != o.meta.version && o.sums == nil:
		return &ChangedError{o.Name(), "its server says that it is another version (ETag, Last-Modified)"}
	}
	return nil
}

// stat asks for its size and version.
func (o *Object) stat(ctx context.Context) error {
	s := o.stream(0, 1)
	for {
		err := s.ask(ctx)
		if err == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.again(ctx, err); err != nil {
			return err
		}
	}
}

// ask is one request for the head of a shard.
func (s *stream) ask(ctx context.Context) error {
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	s.o.known(s.head)
	if s.left <= 2 { // to its end, so that the connection can be used again
		_, _ = io.Copy(io.Discard, s.body)
	}
	return nil
}

// ReadAt reads from the cache, or from the server what is not there.
func (o *Object) ReadAt(b []byte, offset int64) (n int, err error) {
	return o.ReadContext(context.Background(), b, offset)
}

// ReadContext is ReadAt for as long as somebody wants it.
func (o *Object) ReadContext(ctx context.Context, b []byte, offset int64) (n int, err error) {
	if int64(len(b)) > o.store.cache.limit {
		return 0, &RoomError{Need: int64(len(b)), Limit: o.store.cache.limit, For: "one image"}
	}
	for n < len(b) {
		at := offset + int64(n)
		if at >= o.meta.size {
			return n, io.EOF
		}
		block := int(at / o.store.o.Block)
		within := at - int64(block)*o.store.o.Block
		part := b[n:min(len(b), n+int(o.length(block)-within))]
		if err := o.read(ctx, block, part, within); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// read reads a part of a block.
func (o *Object) read(ctx context.Context, block int, b []byte, within int64) error {
	name := blockName(block)
	o.mu.Lock()
	state := o.blocks[block]
	o.mu.Unlock()
	switch {
	case !state.whole:
		if data, ok := o.cached(block); ok {
			copy(b, data[within:])
			return nil
		}
	case o.store.cache.part(o.key, name, b, within):
		o.touch(block, state.touched)
		return nil
	}
	o.mu.Lock()
	onward := o.latest == block-1 || o.latest == block
	o.latest, o.blocks[block].touched = block, time.Time{}
	o.mu.Unlock()
	if onward { // somebody reads it from one end to the other
		o.store.Ahead([]Need{{o, int64(block+1) * o.store.o.Block, min(8, int64(o.count()-block-1)) * o.store.o.Block}})
	}
	data, err := o.fetch(ctx, block)
	if err != nil {
		return err
	}
	copy(b, data[within:])
	return nil
}

// touched is how often the use of a block is written down: it is no small thing for a
// file system.
const touched = 30 * time.Second

// touch writes down that a block is used, now and then.
func (o *Object) touch(block int, last time.Time) (there bool) {
	now := time.Now()
	if now.Sub(last) < touched {
		return true
	}
	if !o.store.cache.touch(o.key, blockName(block)) {
		return false
	}
	o.mu.Lock()
	o.blocks[block].touched = now
	o.mu.Unlock()
	return true
}

// here says whether the cache has a block, and counts it as used.
func (o *Object) here(block int) bool {
	o.mu.Lock()
	last := o.blocks[block].touched
	o.mu.Unlock()
	return o.touch(block, last)
}

// cached is a block of the cache, checked.
func (o *Object) cached(block int) ([]byte, bool) {
	data, ok := o.store.cache.whole(o.key, blockName(block), o.length(block))
	if !ok || o.sums != nil && sha256.Sum256(data) != o.sums[block] {
		return nil, false
	}
	o.store.cache.touch(o.key, blockName(block))
	o.mu.Lock()
	o.blocks[block] = blockState{whole: true, touched: time.Now()}
	o.mu.Unlock()
	return data, true
}

// prefetch fetches those of some blocks that the cache has not. What it has counts as
// used now.
func (o *Object) prefetch(ctx context.Context, first, last int) {
	for n := first; n <= last; n++ {
		if o.here(n) {
			continue
		}
		end := n
		for end < last && !o.here(end+1) {
			end++
		}
		_, many, err := o.fetchSome(ctx, n, end)
		if err != nil {
			return // whoever reads it is told
		}
		n += many - 1
	}
}

// fetch gets a block from the server, and puts it into the cache.
func (o *Object) fetch(ctx context.Context, block int) ([]byte, error) {
	data, _, err := o.fetchSome(ctx, block, block)
	return data, err
}

// fetchSome gets some blocks in one request, and puts them into the cache; it returns
// the first, and how many there are now. Where the first is on its way already, that is
// waited for, and it is the only one; the others end before one that is on its way.
func (o *Object) fetchSome(ctx context.Context, first, last int) (data []byte, many int, err error) {
	o.mu.Lock()
	for f := o.flights[first]; f != nil; f = o.flights[first] {
		o.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		if !errors.Is(f.err, context.Canceled) { // else nobody else wants it any more
			return f.data, 1, f.err
		}
		o.mu.Lock()
	}
	var mine []*flight
	for n := first; n <= last && o.flights[n] == nil; n++ {
		f := &flight{done: make(chan struct{})}
		o.flights[n], mine = f, append(mine, f)
	}
	o.mu.Unlock()
	in := o.stream(int64(first)*o.store.o.Block, int64(first+len(mine)-1)*o.store.o.Block+o.length(first+len(mine)-1))
	defer in.close()
	var failed error
	for i, f := range mine {
		if f.err = failed; failed == nil {
			f.data, f.err = o.take(ctx, in, first+i)
			failed = f.err
		}
		o.mu.Lock()
		delete(o.flights, first+i)
		if o.blocks[first+i].whole = f.err == nil; f.err == nil {
			o.blocks[first+i].touched = time.Now()
		}
		o.mu.Unlock()
		close(f.done)
	}
	return mine[0].data, len(mine), failed
}

// take reads the next block of a stream, checks it and puts it into the cache.
func (o *Object) take(ctx context.Context, in *stream, n int) ([]byte, error) {
	data := make([]byte, o.length(n))
	if err := in.fill(ctx, data); err != nil {
		return nil, err
	}
	if o.sums != nil && sha256.Sum256(data) != o.sums[n] {
		return nil, &ChangedError{o.Name(), fmt.Sprintf("bytes %d to %d are others than they were", int64(n)*o.store.o.Block, int64(n)*o.store.o.Block+o.length(n)-1)}
	}
	if err := o.store.keep(o, n, data, false); err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return data, nil
}

// Store is where the shard is from.
func (o *Object) Store() *Store { return o.store }
