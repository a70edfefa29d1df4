package data

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/replica/augment"
	"mochi/replica/data/remote"
	"mochi/replica/data/shards"
)

// elsewhere is a web server with shards, whose files can be exchanged.
type elsewhere struct {
	*httptest.Server
	mu       sync.Mutex
	files    map[string][]byte
	requests int
	asked    chan struct{} // when not nil: requests are told of there, and not answered
}

func newElsewhere(t *testing.T, files map[string][]byte) *elsewhere {
	e := &elsewhere{files: files}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.requests++
		content, there := e.files[r.URL.Path]
		asked := e.asked
		e.mu.Unlock()
		if asked != nil {
			asked <- struct{}{}
			<-r.Context().Done()
			return
		}
		if !there {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(e.Close)
	return e
}

// pictureShard is a shard of PNG files of noise, from number first on.
func pictureShard(t *testing.T, first, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	member := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for i := first; i < first+n; i++ {
		img := image.NewGray(image.Rect(0, 0, 40+i%3, 40))
		for p := range img.Pix {
			img.Pix[p] = byte(p*i*2654435761>>9 + i)
		}
		img.SetGray(0, 0, color.Gray{Y: byte(i)})
		var file bytes.Buffer
		if err := png.Encode(&file, img); err != nil {
			t.Fatal(err)
		}
		member(fmt.Sprintf("%05d.png", i), file.Bytes())
		member(fmt.Sprintf("%05d.cls", i), []byte(fmt.Sprint(i%4)))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// openAt opens a pattern with small blocks.
func openAt(t *testing.T, pattern string, bytes int64) (*Set, error) {
	t.Helper()
	o := DefaultOptions()
	o.Remote = remote.Options{Folder: t.TempDir(), Bytes: bytes, Block: 2 << 10}
	set, err := OpenAll(strings.Fields(pattern), o)
	if err == nil {
		t.Cleanup(set.Close)
	}
	return set, err
}

// A data set from elsewhere is the one of the same files here: its digest, samples,
// classes, splits and pixels; with another source beside it, and cut to some classes.
func TestElsewhereIsTheSame(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{}
	for i := range 3 {
		files[fmt.Sprintf("/train-%03d.tar", i)] = pictureShard(t, 20*i, 20)
	}
	files["/val-000.tar"] = pictureShard(t, 100, 9)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	site := newElsewhere(t, files)
	const train = "/train-{000..001}.tar"
	list := ClassList{"1", "3"}
	for _, pattern := range []string{"PLACE" + train, "PLACE" + train + " " + dir + "/train-002.tar", dir + "/train-002.tar PLACE" + train} {
		for _, limit := range []int64{10 << 10, 1 << 30} {
			here, err := openAt(t, strings.ReplaceAll(pattern, "PLACE", dir), limit)
			if err != nil {
				t.Fatal(err)
			}
			there, err := openAt(t, strings.ReplaceAll(pattern, "PLACE", site.URL), limit)
			if err != nil {
				t.Fatal(err)
			}
			if there.Info.Shards == "" || !here.Info.Same(there.Info) {
				t.Errorf("%s: %+v, here %+v", pattern, there.Info, here.Info)
			}
			for _, pair := range [][2]Dataset{{here.Train, there.Train}, {here.Test, there.Test}} {
				compareSets(t, pair[0], pair[1])
			}
			few, err := here.Select(list)
			if err != nil {
				t.Fatal(err)
			}
			fewThere, err := there.Select(list)
			if err != nil {
				t.Fatal(err)
			}
			compareSets(t, few.Train, Limit(fewThere.Train, fewThere.Train.Len()))
		}
	}
}

func compareSets(t *testing.T, a, b Dataset) {
	t.Helper()
	if a.Len() != b.Len() || a.Classes() != b.Classes() {
		t.Fatalf("%d samples of %d classes, %d of %d", a.Len(), a.Classes(), b.Len(), b.Classes())
	}
	da, db := NewDecoder(), NewDecoder()
	for i := range a.Len() {
		x, errA := a.Decode(i, da)
		y, errB := b.Decode(i, db)
		if errA != nil || errB != nil || x.W != y.W || !bytes.Equal(x.Pix, y.Pix) || a.Label(i) != b.Label(i) {
			t.Fatalf("sample %d: %v, %v", i, errA, errB)
		}
	}
}

// A shard that changes under way, or is gone, is no corrupt image: nothing takes its
// place, and training ends with its name.
func TestNothingReplacesAShard(t *testing.T) {
	for name, change := range map[string]func(e *elsewhere){
		"changed": func(e *elsewhere) {
			b := slices.Clone(e.files["/train-001.tar"])
			for i := range b {
				b[i] ^= 1
			}
			e.files["/train-001.tar"] = b
		},
		"gone": func(e *elsewhere) { delete(e.files, "/train-001.tar") },
	} {
		t.Run(name, func(t *testing.T) {
			site := newElsewhere(t, map[string][]byte{"/train-000.tar": pictureShard(t, 0, 20), "/train-001.tar": pictureShard(t, 20, 20)})
			set, err := openAt(t, site.URL+"/train-{000..001}.tar", 10<<10)
			if err != nil {
				t.Fatal(err)
			}
			site.mu.Lock()
			change(site)
			site.mu.Unlock()
			recipe, err := augment.New("cifar", 16)
			if err != nil {
				t.Fatal(err)
			}
			loader := NewLoader(set.Train, recipe, LoaderConfig{Workers: 2})
			defer loader.Close()
			var refs []Ref
			for i := range set.Train.Len() {
				refs = append(refs, Ref{Sample: i})
			}
			if err := loader.Submit(Request{Query: [][]Ref{refs}}); err != nil {
				t.Fatal(err)
			}
			_, _, err = loader.Next(t.Context())
			var corrupt *CorruptError
			if err == nil || errors.As(err, &corrupt) || !strings.Contains(err.Error(), "/train-001.tar") || loader.Stats().Corrupt > 0 {
				t.Errorf("%v, %d corrupt", err, loader.Stats().Corrupt)
			}
		})
	}
}

// A damaged shard elsewhere is a fault of the set, as it is here.
func TestDamagedElsewhere(t *testing.T) {
	whole := pictureShard(t, 0, 20)
	site := newElsewhere(t, map[string][]byte{"/train-000.tar": pictureShard(t, 20, 5), "/train-001.tar": whole[:len(whole)/2], "/train-002.tar": []byte("hello"), "/train-003.tar": nil})
	set, err := openAt(t, site.URL+"/train-{000..003}.tar", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Faults) != 3 || !errors.Is(set.Faults[0].Err, shards.ErrCut) || !strings.Contains(set.Faults[1].Error(), "train-002.tar") || !strings.Contains(set.Faults[2].Error(), "is empty") {
		t.Errorf("%v", set.Faults)
	}
	if _, err := openAt(t, site.URL+"/train-002.tar", 1<<30); err == nil || !strings.Contains(err.Error(), "train-002.tar: ") {
		t.Errorf("%v", err)
	}
}

// Samples are fetched ahead as far as the cache has room for: none is fetched by the
// loader itself. A step that the cache cannot hold is told.
func TestAheadOfTheLoader(t *testing.T) {
	site := newElsewhere(t, map[string][]byte{"/train-000.tar": pictureShard(t, 0, 60)})
	set, err := openAt(t, site.URL+"/train-000.tar", 60<<10)
	if err != nil {
		t.Fatal(err)
	}
	var told []int
	batch := func(at int) func(int) []int {
		return func(further int) []int {
			told = append(told, at+further)
			return []int{(7 * (at + further)) % 60, (7*(at+further) + 31) % 60}
		}
	}
	ahead := NewAhead(NewLenient(set.Train, nil))
	for at := range 5 {
		if err := ahead.Keep(int64(at), batch(at)); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range slices.Compact(slices.Clone(told)) {
		if i != n { // the one for which there was no room is asked for again
			t.Fatalf("batches were announced in the order %v", told)
		}
	}
	if n := told[len(told)-1]; n < 5 || n >= aheadBatches {
		t.Errorf("%d batches were announced", n)
	}
	var all []int
	for i := range 60 {
		all = append(all, i)
	}
	var room *remote.RoomError
	if err := NewAhead(set.Train).Keep(0, func(int) []int { return all }); !errors.As(err, &room) || !strings.Contains(err.Error(), "a step of 60 images needs") {
		t.Errorf("%v", err)
	}
	if local := NewAhead(subset{}); local.Keep(0, func(int) []int { t.Error("asked"); return nil }) != nil {
		t.Error("a data set that is here")
	}
}

// A loader whose images do not come can be closed.
func TestCloseWhileNothingComes(t *testing.T) {
	site := newElsewhere(t, map[string][]byte{"/train-000.tar": pictureShard(t, 0, 40)})
	set, err := openAt(t, site.URL+"/train-000.tar", 10<<10)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	site.mu.Lock()
	site.asked = asked
	site.mu.Unlock()
	recipe, err := augment.New("cifar", 16)
	if err != nil {
		t.Fatal(err)
	}
	loader := NewLoader(set.Train, recipe, LoaderConfig{Workers: 2})
	var refs []Ref
	for i := range set.Train.Len() {
		refs = append(refs, Ref{Sample: i})
	}
	if err := loader.Submit(Request{Query: [][]Ref{refs}}); err != nil {
		t.Fatal(err)
	}
	<-asked
	loader.Close() // would last for minutes
}
