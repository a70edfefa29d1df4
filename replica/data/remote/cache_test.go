package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mochi/replica/data/remote"
	"mochi/replica/data/shards"
)

// filesOf is the files of a cache, and their bytes.
func filesOf(t *testing.T, folder string) (paths []string, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(folder, "shards"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if mode := info.Mode().Perm(); mode != 0o600 {
				t.Errorf("%s has mode %o", path, mode)
			}
			paths, bytes = append(paths, path), bytes+info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths, bytes
}

func three() map[string][]byte {
	return map[string][]byte{"/d/train-000.tar": tarOf(10, 8), "/d/train-001.tar": tarOf(11, 1), "/d/train-002.tar": tarOf(12, 20)}
}

const three3 = "http://host/d/train-{000..002}.tar"

// What is read at random is what the files hold, whatever the cache may hold, and the
// cache never holds more. The index is what a scan of the files finds.
func TestReadsAtRandom(t *testing.T) {
	for _, limit := range []int64{5 * blockSize, 20 * blockSize, 1 << 30} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files, folder := three(), t.TempDir()
				s := newSite(t, files)
				store := s.open(folder, func(o *remote.Options) { o.Bytes = limit })
				train, test, err := store.Find(t.Context(), three3)
				if err != nil || len(train) != 3 || len(test) != 0 {
					t.Fatal(train, test, err)
				}
				list, err := store.Index(t.Context(), train)
				if err != nil {
					t.Fatal(err)
				}
				for i, o := range train {
					content := files[fmt.Sprintf("/d/train-%03d.tar", i)]
					want := shards.Scan(bytes.NewReader(content), int64(len(content)))
					if list[i].Fault != nil || fmt.Sprint(list[i].Samples) != fmt.Sprint(want.Samples) || list[i].Members != want.Members {
						t.Errorf("shard %d: %v %+v, want %+v", i, list[i].Fault, list[i].Samples, want.Samples)
					}
					_ = o
				}
				rng := rand.New(rand.NewPCG(5, uint64(limit)))
				var wg sync.WaitGroup
				for range 3 {
					seed := rng.Uint64()
					wg.Go(func() {
						rng := rand.New(rand.NewPCG(seed, 0))
						for range 60 {
							i := rng.IntN(3)
							content := files[fmt.Sprintf("/d/train-%03d.tar", i)]
							from := rng.IntN(len(content))
							b := make([]byte, rng.IntN(min(len(content)-from, 3*blockSize)+1))
							if rng.IntN(2) == 0 {
								store.Ahead([]remote.Need{{Object: train[i], Offset: int64(from), Length: int64(len(b))}})
							}
							if n, err := train[i].ReadAt(b, int64(from)); err != nil || n != len(b) || !bytes.Equal(b, content[from:from+len(b)]) {
								t.Errorf("shard %d, %d bytes from %d on: %d, %v", i, len(b), from, n, err)
							}
						}
					})
				}
				wg.Wait()
				synctest.Wait()
				if _, held := filesOf(t, folder); held > limit {
					t.Errorf("the cache holds %d bytes, and may hold %d", held, limit)
				}
			})
		})
	}
}

// progress is done, how far, rate, how long still.
var progress = regexp.MustCompile(`^indexed [0-3] of 3 shards, [0-9.]+ [kM]B of [0-9.]+ kB, [0-9.]+ kB/s, [0-9smh.]+ left$`)

// Once everything is there, nothing is fetched, by the next process too; it asks for one
// byte a shard.
func TestNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, folder := three(), t.TempDir()
		s := newSite(t, files)
		s.spoiled(func(http.ResponseWriter, *http.Request, int) bool { time.Sleep(time.Second); return false })
		var mu sync.Mutex
		var last string
		store := s.open(folder, func(o *remote.Options) {
			o.Connections = 1
			o.Progress = func(text string) {
				mu.Lock()
				defer mu.Unlock()
				if last = text; !progress.MatchString(text) {
					t.Errorf("progress: %s", text)
				}
			}
		})
		if _, err := indexed(store, three3); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(last, " 0s left") {
			t.Errorf("at the end: %s", last)
		}
		var size int64
		for _, b := range files {
			size += int64(len(b))
		}
		if store.Fetched() != size {
			t.Errorf("indexing %d bytes fetched %d", size, store.Fetched())
		}
		again := s.open(folder, nil)
		s.spoiled(nil)
		objects, err := indexed(again, three3)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range objects {
			same(t, o, files[fmt.Sprintf("/d/train-%03d.tar", i)])
		}
		var stats int
		for _, r := range s.requests {
			if strings.Contains(r.URL.Path, "train") {
				stats++
			}
		}
		if again.Fetched() != 0 || stats != 3 {
			t.Errorf("the next process fetched %d bytes in %d requests", again.Fetched(), stats)
		}
		if remote.Pin(objects) == "" || remote.Pin(objects) != remote.Pin(must(indexed(s.open(t.TempDir(), nil), three3))) {
			t.Error("from an empty cache it is another content")
		}
	})
}

func must(o []*remote.Object, err error) []*remote.Object {
	if err != nil {
		panic(err)
	}
	return o
}

// Files of the cache that are cut, changed, empty or exchanged are never used: what is
// read stays what the server has.
func TestDamagedCache(t *testing.T) {
	for name, damage := range map[string]func(paths []string) error{
		"cut":       func(p []string) error { return each(p, func(b []byte) []byte { return b[:len(b)/2] }) },
		"empty":     func(p []string) error { return each(p, func(b []byte) []byte { return nil }) },
		"zeros":     func(p []string) error { return each(p, func(b []byte) []byte { return make([]byte, len(b)) }) },
		"one bit":   func(p []string) error { return each(p, func(b []byte) []byte { b[len(b)/3] ^= 4; return b }) },
		"exchanged": func(p []string) error { return os.Rename(p[0], p[1]) },
		"gone":      func(p []string) error { return each(p, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files, folder := three(), t.TempDir()
				s := newSite(t, files)
				running, err := indexed(s.open(folder, nil), three3)
				if err != nil {
					t.Fatal(err)
				}
				paths, _ := filesOf(t, folder)
				if err := damage(paths); err != nil {
					t.Fatal(err)
				}
				objects, err := indexed(s.open(folder, nil), three3)
				if err != nil {
					t.Fatal(err)
				}
				for i := range objects {
					same(t, objects[i], files[fmt.Sprintf("/d/train-%03d.tar", i)])
				}
				if name == "gone" { // under a process that had checked it
					if err := damage(paths); err != nil {
						t.Fatal(err)
					}
				}
				for i := range running {
					same(t, running[i], files[fmt.Sprintf("/d/train-%03d.tar", i)])
				}
			})
		})
	}
}

func each(paths []string, change func([]byte) []byte) error {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case change == nil:
			err = os.Remove(p)
		default:
			err = os.WriteFile(p, change(b), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// What a process that died has left half written is no block, and goes after an hour.
func TestHalfWritten(t *testing.T) {
	folder := t.TempDir()
	half := filepath.Join(folder, "new", "12345")
	if err := os.MkdirAll(filepath.Dir(half), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{time.Minute, 2 * time.Hour} {
		if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(half, then, then); err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Open(remote.Options{Folder: folder}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(half); (err == nil) != (age < time.Hour) {
			t.Errorf("after %v: %v", age, err)
		}
	}
}

// What was used longest ago leaves first; a block that is used stays, whoever fetched it.
func TestLeastRecentlyUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := make([]byte, 40*blockSize)
		copy(content, tarOf(3, 3))
		files := map[string][]byte{"/train-000.tar": content}
		s := newSite(t, files)
		folder := t.TempDir()
		store := s.open(folder, func(o *remote.Options) { o.Bytes = 16 * (blockSize + 100) })
		objects, err := indexed(store, "http://host/train-000.tar")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		read := func(block int) (fetched bool) {
			before := store.Fetched()
			if _, err := objects[0].ReadAt(b, int64(block)*blockSize); err != nil {
				t.Fatal(err)
			}
			time.Sleep(31 * time.Second) // on the clock of the bubble
			return store.Fetched() != before
		}
		for i := range 8 { // every third: nobody reads on from these
			read(3 * i)
		}
		for i := range 40 {
			read(0)
			read((7 * i) % 40)
		}
		if read(0) {
			t.Error("the block that was used most is gone")
		}
		if _, held := filesOf(t, folder); held > store.Limit() {
			t.Errorf("%d bytes of %d", held, store.Limit())
		}
	})
}

// Two processes share a folder, each with a limit of its own, and neither harms the
// other.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, folder := three(), t.TempDir()
		s := newSite(t, files)
		var wg sync.WaitGroup
		for i, limit := range []int64{1 << 30, 10 * blockSize, 14 * blockSize} {
			wg.Go(func() {
				store := s.open(folder, func(o *remote.Options) { o.Bytes = limit })
				objects, err := indexed(store, three3)
				if err != nil {
					t.Errorf("process %d: %v", i, err)
					return
				}
				for range 3 {
					for j, o := range objects {
						want := files[fmt.Sprintf("/d/train-%03d.tar", j)]
						got := make([]byte, len(want))
						if _, err := readAll(o, got); err != nil || !bytes.Equal(got, want) {
							t.Errorf("process %d, shard %d: %v", i, j, err)
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

// Processes that begin together read each shard once between them.
func TestSharedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, folder := three(), t.TempDir()
		s := newSite(t, files)
		s.spoiled(func(http.ResponseWriter, *http.Request, int) bool { time.Sleep(time.Second); return false })
		var size, fetched int64
		for _, b := range files {
			size += int64(len(b))
		}
		var stores []*remote.Store
		var wg sync.WaitGroup
		for range 4 {
			store := s.open(folder, nil)
			stores = append(stores, store)
			wg.Go(func() {
				if _, err := indexed(store, three3); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, store := range stores {
			fetched += store.Fetched()
		}
		if fetched != size {
			t.Errorf("4 processes fetched %d bytes of %d", fetched, size)
		}
	})
}

// A folder that others may write in is refused, and so is a limit that is too small to
// read at all.
func TestRefusedFolders(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Open(remote.Options{Folder: folder}); err == nil || !strings.Contains(err.Error(), "others can write into it (mode 0777)") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Open(remote.Options{Folder: file}); err == nil || !strings.Contains(err.Error(), "--cache-dir "+file) {
		t.Errorf("%v", err)
	}
	var room *remote.RoomError
	if _, err := remote.Open(remote.Options{Folder: t.TempDir(), Bytes: 1 << 20}); !errors.As(err, &room) || !strings.Contains(err.Error(), "raise --cache-bytes") {
		t.Errorf("%v", err)
	}
	fresh := filepath.Join(t.TempDir(), "a", "b")
	if _, err := remote.Open(remote.Options{Folder: fresh}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(fresh); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a new folder: %v, %v", info.Mode(), err)
	}
}

// A step that needs more than the cache holds is told before it is tried.
func TestTooLittleForAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, three())
		store := s.open(t.TempDir(), func(o *remote.Options) { o.Bytes = 5 * blockSize })
		objects, err := indexed(store, three3)
		if err != nil {
			t.Fatal(err)
		}
		var room *remote.RoomError
		_, err = store.Blocks([]remote.Need{{Object: objects[0], Offset: 10, Length: 2 * blockSize}, {Object: objects[2], Offset: blockSize, Length: 2 * blockSize}}, "a step of 2 images")
		if !errors.As(err, &room) || !strings.Contains(err.Error(), "a step of 2 images needs") {
			t.Errorf("%v", err)
		}
		if n, err := store.Blocks([]remote.Need{{Object: objects[0], Offset: 10, Length: 20}, {Object: objects[0], Offset: 50, Length: 20}}, "x"); err != nil || n != blockSize+32 {
			t.Errorf("two samples of one block: %d, %v", n, err)
		}
	})
}

// A server that knows no parts is of use as long as all of its data fit.
func TestNoPartsAndNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, three())
		s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool {
			r.Header.Del("Range")
			return false
		})
		_, err := indexed(s.open(t.TempDir(), func(o *remote.Options) { o.Bytes = 8 * blockSize }), three3)
		if err == nil || !strings.Contains(err.Error(), "no range requests") || !strings.Contains(err.Error(), "--cache-bytes") {
			t.Errorf("%v", err)
		}
	})
}

// What will be read is there in time: with answers that take 50 ms, reads that were
// announced do not wait for each other.
func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := tarOf(4, 60)
		s := newSite(t, map[string][]byte{"/train-000.tar": content})
		folder := t.TempDir()
		store := s.open(folder, nil)
		objects, err := indexed(store, "http://host/train-000.tar")
		if err != nil {
			t.Fatal(err)
		}
		paths, _ := filesOf(t, folder)
		if err := each(paths, nil); err != nil {
			t.Fatal(err)
		}
		s.spoiled(func(http.ResponseWriter, *http.Request, int) bool {
			time.Sleep(50 * time.Millisecond)
			return false
		})
		rng := rand.New(rand.NewPCG(1, 1))
		var needs []remote.Need
		for range 64 {
			needs = append(needs, remote.Need{Object: objects[0], Offset: rng.Int64N(int64(len(content) - 2000)), Length: 2000})
		}
		begun := time.Now()
		store.Ahead(needs)
		for _, n := range needs {
			b := make([]byte, n.Length)
			if _, err := n.Object.ReadAt(b, n.Offset); err != nil || !bytes.Equal(b, content[n.Offset:n.Offset+n.Length]) {
				t.Fatal(err)
			}
		}
		if took, alone := time.Since(begun), time.Duration(s.count())*50*time.Millisecond; took > alone/8 {
			t.Errorf("%d requests, %v; one after the other %v", s.count(), took, alone)
		}
	})
}

// Whoever gives up is not kept waiting.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, three())
		s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool { <-r.Context().Done(); return true })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		_, _, err := s.open(t.TempDir(), nil).Find(ctx, three3)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 4*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}
