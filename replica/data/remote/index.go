package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"mochi/coordinator/protocol"
	"mochi/replica/data/shards"
)

// indexers is how many shards are indexed at a time.
const indexers = 8

// Index reads what shards hold: each of them once in full, unless the cache has its
// index.
func (s *Store) Index(ctx context.Context, objects []*Object) ([]*shards.Shard, error) {
	sizes, ctx1 := errgroup.WithContext(ctx)
	sizes.SetLimit(s.o.Connections)
	for _, o := range objects {
		sizes.Go(func() error {
			if o.key != "" {
				return nil // from looking for it
			}
			return o.stat(ctx1)
		})
	}
	if err := sizes.Wait(); err != nil {
		return nil, err
	}
	p := progress{store: s, shards: len(objects), began: time.Now()}
	for _, o := range objects {
		p.total += o.meta.size
	}
	list := make([]*shards.Shard, len(objects))
	for slices.Contains(list, nil) {
		if err := p.index(ctx, objects, list); err != nil {
			return nil, err
		}
	}
	for _, o := range objects {
		if o.whole.Load() && p.total > s.cache.limit {
			return nil, &Error{o.Name(), fmt.Errorf("its server answers no range requests, so that all of it would be fetched for each image that the cache has not: %w",
				&RoomError{Need: p.total, Limit: s.cache.limit, For: "all of the data"})}
		}
	}
	return list, nil
}

// index indexes those of some shards that are missing in list, and that no other process
// is at: that shares the work. Where all that are missing are others', it waits a moment.
func (p *progress) index(ctx context.Context, objects []*Object, list []*shards.Shard) error {
	began := p.done.Load()
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(indexers)
	for i, o := range objects {
		if list[i] != nil {
			continue
		}
		group.Go(func() error {
			shard, err := o.index(within, p)
			if err != nil || shard == nil {
				return err
			}
			shard.Path, shard.From = o.Name(), o
			list[i] = shard
			p.done.Add(1)
			p.tell()
			return nil
		})
	}
	if err := group.Wait(); err != nil || p.done.Load() > began {
		return err
	}
	p.store.o.Progress("another process reads the same shards first; waiting for it")
	return pause(ctx, 200*time.Millisecond)
}

// progress is how far the indexing is.
type progress struct {
	store  *Store
	shards int
	total  int64 // bytes
	began  time.Time
	done   atomic.Int64 // shards
	bytes  atomic.Int64
	known  atomic.Int64 // of bytes, those of indexes that were there
}

// tell tells.
func (p *progress) tell() {
	bytes, seconds := p.bytes.Load(), max(time.Since(p.began).Seconds(), 1e-3)
	rate := float64(bytes-p.known.Load()) / seconds
	left := "no end in sight"
	if rate > 0 {
		left = time.Duration(float64(p.total-bytes)/rate*1e9).Round(time.Second).String() + " left"
	}
	p.store.o.Progress(fmt.Sprintf("indexed %d of %d shards, %s of %s, %s/s, %s", p.done.Load(), p.shards, Bytes(bytes), Bytes(p.total), Bytes(int64(rate)), left))
}

// index is what the shard holds; nil where another process is about to index it.
func (o *Object) index(ctx context.Context, p *progress) (*shards.Shard, error) {
	release, busy, err := o.store.cache.claim(o.key)
	if err != nil {
		return nil, o.store.cache.fault(err)
	}
	if busy {
		return nil, nil
	}
	defer release()
	if content, ok := o.store.cache.whole(o.key, indexFile, -1); ok {
		if shard, sums, err := decodeIndex(content, o.store.o.Build, o.meta.size, o.store.o.Block); err == nil {
			o.sums = sums
			o.store.cache.touch(o.key, indexFile)
			p.known.Add(o.meta.size)
			p.bytes.Add(o.meta.size)
			return shard, nil
		}
	}
	r := &pass{o: o, ctx: ctx, sums: make([][sha256.Size]byte, o.count()), progress: p}
	defer r.close()
	shard := shards.Scan(r, o.meta.size)
	for r.next < o.count() && r.err == nil { // what the scan had no need of
		r.block(r.next)
	}
	if r.err != nil {
		return nil, r.err
	}
	o.sums = r.sums
	if shard.Fault == nil {
		if content, err := encodeIndex(shard, o.sums, o.store.o.Build, o.store.o.Block); err == nil { // else it is made again next time
			if err := o.store.cache.put(o.key, indexFile, content, false); err != nil && !errors.Is(err, errFull) {
				return nil, o.store.cache.fault(err)
			}
		}
	}
	return shard, nil
}

// pass reads a shard from its beginning to its end, for whoever looks at its headers.
// It takes every block once, into the cache while there is room, and its digest.
type pass struct {
	o        *Object
	ctx      context.Context
	progress *progress
	sums     [][sha256.Size]byte
	in       *stream // open behind the block taken last; nil: none
	next     int     // block
	pos      int64
	hand     int // block in data
	data     []byte
	full     bool // there is no room for more
	err      error
}

// Seek implements io.Seeker.
func (r *pass) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.o.meta.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.pos = offset
	return offset, nil
}

// Read implements io.Reader.
func (r *pass) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.pos >= r.o.meta.size {
		return 0, io.EOF
	}
	n := int(r.pos / r.o.store.o.Block)
	if data := r.block(n); r.err == nil {
		m := copy(b, data[r.pos-int64(n)*r.o.store.o.Block:])
		r.pos += int64(m)
		return m, nil
	}
	return 0, r.err
}

// block is block n: of those not taken yet, all up to it are.
func (r *pass) block(n int) []byte {
	if r.data != nil && r.hand == n {
		return r.data
	}
	if n < r.next { // back again, which is rare
		data, ok := r.o.cached(n)
		if !ok {
			data, r.err = r.o.fetch(r.ctx, n)
		}
		r.data, r.hand = data, n
		return data
	}
	for r.next <= n && r.err == nil {
		r.data, r.hand = r.take(), r.next
		r.next++
	}
	return r.data
}

// take is the next block.
func (r *pass) take() []byte {
	o, n := r.o, r.next
	data, ok := o.cached(n)
	if ok {
		r.close() // it would stand at the wrong place
		r.progress.known.Add(int64(len(data)))
	} else {
		if r.in == nil {
			r.in = o.stream(int64(n)*o.store.o.Block, o.meta.size)
		}
		data = make([]byte, o.length(n))
		if r.err = r.in.fill(r.ctx, data); r.err != nil {
			return nil
		}
		if !r.full {
			err := o.store.keep(o, n, data, true)
			if r.full = errors.Is(err, errFull); err != nil && !r.full {
				r.err = err
				return nil
			}
		}
	}
	r.sums[n] = sha256.Sum256(data)
	r.progress.bytes.Add(int64(len(data)))
	r.progress.tell()
	return data
}

func (r *pass) close() {
	if r.in != nil {
		r.in.close()
		r.in = nil
	}
}

// index is the form of an index in the cache.
type index struct {
	Format int           `json:"format"`
	Build  string        `json:"build"`
	Sums   []string      `json:"sums"`
	Shard  *shards.Shard `json:"shard"`
}

// indexFormat is raised when the form changes.
const indexFormat = 1

// encodeIndex is the index of a shard. The error says why it would not be the same when
// it is read: names of members may be any bytes.
func encodeIndex(shard *shards.Shard, sums [][sha256.Size]byte, build string, block int64) ([]byte, error) {
	list := make([]string, len(sums))
	for i, sum := range sums {
		list[i] = hex.EncodeToString(sum[:])
	}
	content, err := json.Marshal(index{indexFormat, build, list, shard})
	if err != nil {
		return nil, err
	}
	back, _, err := decodeIndex(content, build, shard.Size, block)
	if err == nil && !reflect.DeepEqual(back, shard) {
		err = errors.New("a name in it is no text")
	}
	return content, err
}

// decodeIndex reads what encodeIndex wrote, of a shard of so many bytes.
func decodeIndex(content []byte, build string, size, block int64) (*shards.Shard, [][sha256.Size]byte, error) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	var in index
	if err := d.Decode(&in); err != nil {
		return nil, nil, err
	}
	if in.Format != indexFormat || in.Build != build || in.Shard == nil || in.Shard.Size != size || int64(len(in.Sums)) != (size+block-1)/block {
		return nil, nil, errors.New("of something else")
	}
	sums := make([][sha256.Size]byte, len(in.Sums))
	for i, s := range in.Sums {
		if n, err := hex.Decode(sums[i][:], []byte(s[:min(len(s), 2*sha256.Size)])); err != nil || n != sha256.Size {
			return nil, nil, fmt.Errorf("digest %d is none", i)
		}
	}
	for _, s := range in.Shard.Samples {
		stored := s.Size
		if s.Packed.Zip {
			return nil, nil, errors.New("of an archive of another kind")
		}
		if s.Offset < 0 || stored < 0 || s.Offset > size || stored > size {
			return nil, nil, fmt.Errorf("sample %q lies outside", s.Name)
		}
	}
	if in.Shard.Names == nil {
		in.Shard.Names = make(map[string]string)
	}
	return in.Shard, sums, nil
}

// mostPinned is how many digests Pin writes down.
const mostPinned = 256

// Pin is the content of indexed shards, in a few words that can be compared with those
// of another day (protocol.OtherShards): of each its name and a digest, or, where there
// are many, of some together.
func Pin(objects []*Object) string {
	var words []string
	for i := range min(len(objects), mostPinned) {
		of := objects[i*len(objects)/min(len(objects), mostPinned) : (i+1)*len(objects)/min(len(objects), mostPinned)]
		h := sha256.New()
		for _, o := range of {
			sum := o.Digest()
			h.Write(sum[:])
		}
		name := of[0].at.base()
		if len(of) > 1 {
			name += "…" + of[len(of)-1].at.base()
		}
		words = append(words, strings.NewReplacer(" ", "_", protocol.ShardMark, "_").Replace(name)+protocol.ShardMark+hex.EncodeToString(h.Sum(nil)[:4]))
	}
	return strings.Join(words, " ")
}
