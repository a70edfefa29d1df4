package remote_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/replica/data/remote"
)

// site is a web server in memory, whose answers a test can spoil.
type site struct {
	t      *testing.T
	server *http.Server
	in     chan net.Conn
	closed chan struct{}

	answering sync.WaitGroup

	mu       sync.Mutex
	files    map[string][]byte
	etags    map[string]string // "" is none
	requests []*http.Request
	spoil    func(w http.ResponseWriter, r *http.Request, n int) bool // of request n, from 0; true: it was answered
}

func newSite(t *testing.T, files map[string][]byte) *site {
	s := &site{t: t, in: make(chan net.Conn), closed: make(chan struct{}), files: files, etags: map[string]string{}}
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve)}
	go s.server.Serve(s)
	t.Cleanup(func() {
		s.server.Close()
		s.answering.Wait()
	})
	return s
}

func (s *site) Accept() (net.Conn, error) {
	select {
	case c := <-s.in:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *site) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

func (s *site) Addr() net.Addr { return &net.TCPAddr{} }

// transport reaches the site under any name.
func (s *site) transport() *http.Transport {
	t := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "nowhere") {
			return nil, &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}
		}
		here, there := net.Pipe()
		select {
		case s.in <- there:
			return here, nil
		case <-s.closed:
			return nil, errors.New("connection refused")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	s.t.Cleanup(t.CloseIdleConnections)
	return t
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.answering.Add(1)
	defer s.answering.Done()
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, r)
	spoil := s.spoil
	content, there := s.files[r.URL.Path]
	etag := s.etags[r.URL.Path]
	s.mu.Unlock()
	if spoil != nil && spoil(w, r, n) {
		return
	}
	if !there {
		http.NotFound(w, r)
		return
	}
	if etag == "" {
		etag = fmt.Sprintf(`"%d"`, len(content))
	}
	w.Header().Set("ETag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// count is how many requests there were.
func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

func (s *site) set(path string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = content
}

func (s *site) spoiled(by func(w http.ResponseWriter, r *http.Request, n int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil, s.requests = by, nil
}

// blockSize is that of the tests: some blocks a shard.
const blockSize = 4 << 10

// open opens a store on a site.
func (s *site) open(folder string, change func(*remote.Options)) *remote.Store {
	s.t.Helper()
	o := remote.Options{Folder: folder, Bytes: 1 << 30, Block: blockSize, Transport: s.transport()}
	if change != nil {
		change(&o)
	}
	store, err := remote.Open(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(store.Close)
	return store
}

// indexed finds and indexes.
func indexed(store *remote.Store, pattern string) ([]*remote.Object, error) {
	train, _, err := store.Find(context.Background(), pattern)
	if err != nil {
		return nil, err
	}
	_, err = store.Index(context.Background(), train)
	return train, err
}

// tarOf is a shard of some samples, whose contents are noise.
func tarOf(seed uint64, samples int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	member := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			panic(err)
		}
		if _, err := w.Write(content); err != nil {
			panic(err)
		}
	}
	for i := range samples {
		content := make([]byte, rng.IntN(3*blockSize))
		for j := range content {
			content[j] = byte(rng.Uint32())
		}
		member(fmt.Sprintf("%04d.jpg", i), content)
		member(fmt.Sprintf("%04d.cls", i), []byte(fmt.Sprint(i%3)))
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// same compares all of an object with what it must hold.
func same(t *testing.T, o *remote.Object, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := o.ReadAt(got, 0); err != nil || n != len(want) {
		t.Fatalf("%s: %d bytes, %v", o.Name(), n, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: other bytes", o.Name())
	}
}
