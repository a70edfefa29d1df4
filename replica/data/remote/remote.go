// Package remote reads tar shards from web servers (http, https) and from S3, over a
// cache on the local disk.
//
// A shard is read once in full when it is indexed: that fills the cache, as far as its
// limit allows, and gives the digest of each of its blocks (Block bytes, the last one
// shorter). Later a block is read from the cache, or else fetched alone, by a range
// request, and must have that digest: a shard that changes under way is a *ChangedError
// that names it, whatever its server says. The digests are kept beside the blocks with
// the index, by the shard's address, size and version (ETag, or Last-Modified), so the
// next process asks the servers for one byte a shard.
//
// Store.Ahead fetches what will be read, in the order in which it will be. Where a
// server fails, stalls or breaks off, it is asked again from where it stopped, later
// and later, for as long as Options.Patience allows without a byte; Retry-After is
// honoured. What a server says is checked (ranges, lengths, sizes, packing); one that
// answers with all of a shard where a part was asked for is read from its beginning.
//
// User names, passwords, keys and what stands behind a question mark in an address are
// shown nowhere and written nowhere.
//
// Cost: a block that is there costs an open, a read and a close (some 20 µs), and at
// its first use in a process a SHA-256 of it (0.5 ms a MiB); in memory, 32 bytes a block
// and one block for each request in hand.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mochi/replica/data/remote/s3"
)

// Options are what Open may be told; zeros are defaults.
type Options struct {
	Folder string // of the cache; "": the user's
	Bytes  int64  // that it may hold; 0: nine tenths of what is free there
	// Build says which program reads indexes: those of another one are made again.
	Build string
	// Progress is told how far the indexing is, and of servers that fail; nil: nobody is.
	Progress func(text string)

	Block       int64             // bytes of a block; default 1 MiB
	Connections int               // requests at a time ahead of their use; default 16
	Stall       time.Duration     // without a byte, after which a request is given up; default 30 s
	Patience    time.Duration     // without a byte, after which it is an error; default 5 min
	Transport   http.RoundTripper // default net/http's, without HTTP/2
}

// Store is where shards come from. It is safe for concurrent use.
type Store struct {
	o      Options
	origin *origin
	cache  *cache
	heard  atomic.Bool     // a server has answered
	bytes  atomic.Int64    // that came
	ctx    context.Context // of what is fetched ahead; Close ends it
	stop   context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	ahead  []span // to be fetched, in this order
	active int    // goroutines that do
}

// Open opens the cache. No server is asked yet.
func Open(o Options) (*Store, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	set := func(to *time.Duration, d time.Duration) {
		if *to == 0 {
			*to = d
		}
	}
	set(&o.Stall, 30*time.Second)
	set(&o.Patience, 5*time.Minute)
	if o.Block == 0 {
		o.Block = 1 << 20
	}
	if o.Connections == 0 {
		o.Connections = 16
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if least := 4 * (o.Block + sumLen); o.Bytes != 0 && o.Bytes < least {
		return nil, &RoomError{Need: least, Limit: o.Bytes, For: "reading at all"}
	}
	c, err := openCache(o.Folder, o.Bytes)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Store{
		o: o, cache: c, ctx: ctx, stop: stop,
		origin: &origin{
			http: &http.Client{Transport: o.Transport, CheckRedirect: noDowngrade},
			s3:   sync.OnceValues(func() (*s3.Client, error) { return s3.New(o.Transport) }),
			now:  time.Now,
		},
	}, nil
}

// Close ends what is fetched ahead, and waits for it. (Where the process ends instead,
// nothing is lost but what is on its way.)
func (s *Store) Close() {
	s.mu.Lock()
	s.ahead = nil
	s.stop()
	s.mu.Unlock()
	s.work.Wait()
	s.cache.lock.Close()
}

// Folder is the cache's.
func (s *Store) Folder() string { return s.cache.folder }

// Limit is how many bytes the cache may hold.
func (s *Store) Limit() int64 { return s.cache.limit }

// Fetched is how many bytes have come from servers.
func (s *Store) Fetched() int64 { return s.bytes.Load() }

func (s *Store) came(n int) { s.bytes.Add(int64(n)) }

// trouble tells of a request that will be made again.
func (s *Store) trouble(o *Object, why error) {
	s.o.Progress(fmt.Sprintf("%s: %v; asking again", o.Name(), why))
}

// keep puts a block into the cache; recent is that of evict. That there is no room is
// no fault: the block is used from memory.
func (s *Store) keep(o *Object, n int, content []byte, recent bool) error {
	err := s.cache.put(o.key, blockName(n), content, recent)
	if err == nil || errors.Is(err, errFull) {
		return err
	}
	return s.cache.fault(err)
}

// span is blocks of a shard, one behind the other.
type span struct {
	o           *Object
	first, last int
}

// Need is a part of a shard that will be read.
type Need struct {
	Object         *Object
	Offset, Length int64
}

// Blocks is how many bytes the blocks have that hold all of needs. It is a *RoomError
// where the cache cannot hold them together; what says what they are for.
func (s *Store) Blocks(needs []Need, what string) (bytes int64, err error) {
	for _, p := range s.spans(needs) {
		for n := p.first; n <= p.last; n++ {
			bytes += p.o.length(n) + sumLen
		}
	}
	if bytes > s.cache.limit {
		return bytes, &RoomError{Need: bytes, Limit: s.cache.limit, For: what}
	}
	return bytes, nil
}

// spans are the blocks of needs, each once, in the order of needs; those that are
// neighbours in one of them.
func (s *Store) spans(needs []Need) (list []span) {
	seen := make(map[span]bool)
	for _, need := range needs {
		if need.Length <= 0 {
			continue
		}
		first, last := int(need.Offset/s.o.Block), int((need.Offset+need.Length-1)/s.o.Block)
		for n := first; n <= last; n++ {
			one := span{need.Object, n, n}
			if seen[one] {
				continue
			}
			seen[one] = true
			if k := len(list) - 1; k >= 0 && list[k].o == need.Object && list[k].last == n-1 {
				list[k].last = n
				continue
			}
			list = append(list, one)
		}
	}
	return list
}

// Ahead fetches what will be read, in the background, behind what it was told before.
// What fails there is fetched again, and told, when it is read.
func (s *Store) Ahead(needs []Need) {
	spans := s.spans(needs)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.ahead = append(s.ahead, spans...)
	for s.active < min(s.o.Connections, len(s.ahead)) {
		s.active++
		s.work.Go(s.fetchAhead) // ends when nothing is left to fetch
	}
}

func (s *Store) fetchAhead() {
	for {
		s.mu.Lock()
		if len(s.ahead) == 0 {
			s.active--
			s.mu.Unlock()
			return
		}
		p := s.ahead[0]
		s.ahead = s.ahead[1:]
		s.mu.Unlock()
		p.o.prefetch(s.ctx, p.first, p.last)
	}
}
