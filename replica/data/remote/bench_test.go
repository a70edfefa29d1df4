package remote_test

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"mochi/replica/data/remote"
	"mochi/replica/data/shards"
)

// BenchmarkReadAt reads 15 kB of a shard of 64 MB at random, from the cache and from a
// file.
func BenchmarkReadAt(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "train-000.tar")
	content := make([]byte, 64<<20)
	copy(content, tarOf(1, 100))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	store, err := remote.Open(remote.Options{Folder: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	objects, err := indexed(store, server.URL+"/train-000.tar")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := objects[0].ReadAt(make([]byte, len(content)), 0); err != nil { // once, which checks it
		b.Fatal(err)
	}
	files := shards.NewFiles([]*shards.Shard{{Path: path, File: path, Size: int64(len(content))}})
	buffer := make([]byte, 15<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	at := func() int64 { return rng.Int64N(int64(len(content) - len(buffer))) }
	b.Run("cache", func(b *testing.B) {
		for b.Loop() {
			if _, err := objects[0].ReadAt(buffer, at()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("file", func(b *testing.B) {
		for b.Loop() {
			if err := files.ReadAt(0, buffer, at()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
