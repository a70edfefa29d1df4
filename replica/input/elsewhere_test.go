package input_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"mochi/replica/data"
	"mochi/replica/input"
	"mochi/replica/replicatest"
)

// Images that are elsewhere are asked for when a round begins, of more steps than the
// loader is told of, though nobody has read one yet.
func TestFetchedAhead(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} { // a block each, and more
		content := make([]byte, 3<<10)
		if err := w.WriteHeader(&tar.Header{Name: name + ".png", Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1000)
	var on atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if on.Load() {
			asked <- r.Header.Get("Range")
		}
		if filepath.Base(r.URL.Path) != "train-000.tar" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.Bytes()))
	}))
	defer server.Close()
	o, folder := data.DefaultOptions(), t.TempDir()
	o.Remote.Folder, o.Remote.Block = folder, 1<<10
	set, err := data.OpenWith(server.URL+"/train-000.tar", o)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if err := os.RemoveAll(filepath.Join(folder, "shards")); err != nil { // another machine
		t.Fatal(err)
	}
	on.Store(true)
	in := input.New(input.Config{Seed: 3, Batch: 2, Unit: 2}, set.Train, &source{Images: replicatest.NewImages(2, 1)}, &stager{})
	if err := in.Start(0, 0, []int{0}, nil); err != nil {
		t.Fatal(err)
	}
	for range 5 { // of six steps at least one each; the loader knows two, of four samples
		<-asked
	}
}
