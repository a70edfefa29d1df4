package unpacked

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func packed(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// upper is a maker that counts its calls.
func upper(calls *atomic.Int64) Maker {
	return Maker{Kind: "upper", Make: func(out io.Writer, in *os.File) error {
		calls.Add(1)
		text, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		_, err = out.Write(bytes.ToUpper(text))
		return err
	}}
}

// A source is unpacked once, by whoever comes first; again when it has changed, and when
// what was unpacked is not whole. Nothing else is left in the folder.
func TestOnce(t *testing.T) {
	dir, source := t.TempDir(), filepath.Join(t.TempDir(), "source")
	put(t, source, []byte("one"))
	var calls atomic.Int64
	f := Folder{Dir: dir}
	open := func(want string) string {
		t.Helper()
		path, err := f.Open(source, upper(&calls))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			t.Fatalf("%q, %v", text, err)
		}
		return path
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { open("ONE") })
	}
	all.Wait()
	path := open("ONE")
	if n := calls.Load(); n != 1 {
		t.Errorf("%d times", n)
	}
	if err := os.Truncate(path, 2); err != nil {
		t.Fatal(err)
	}
	open("ONE")
	put(t, source, []byte("another"))
	if err := os.Chtimes(source, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, filepath.Base("."+strings.Join(strings.Split(filepath.Base(path), "-")[:2], "-"))+".half"), []byte("HA"))
	open("ANOTHER")
	if n := calls.Load(); n != 3 {
		t.Errorf("%d times", n)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // it and the lock
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

// What fails leaves nothing behind, and is tried again.
func TestFails(t *testing.T) {
	dir, source := t.TempDir(), filepath.Join(t.TempDir(), "source")
	put(t, source, []byte("one"))
	f, why := Folder{Dir: dir}, errors.New("no")
	for range 2 {
		if _, err := f.Open(source, Maker{Kind: "x", Make: func(out io.Writer, _ *os.File) error {
			if _, err := out.Write(make([]byte, 3<<20)); err != nil {
				return err
			}
			return why
		}}); !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	}
	if found, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(found) > 0 {
		t.Errorf("%v is left, %v", found, err)
	}
	if _, err := f.Open(filepath.Join(dir, "none"), Gzip()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	put(t, filepath.Join(dir, "file"), nil)
	if _, err := (Folder{Dir: filepath.Join(dir, "file", "x")}).Open(source, Gzip()); err == nil {
		t.Error("a folder below a file")
	}
}

func TestGzip(t *testing.T) {
	text := bytes.Repeat([]byte("mochi "), 100)
	one := packed(t, text)
	for name, c := range map[string]struct {
		content []byte
		want    string // of the error
	}{
		"whole":     {one, ""},
		"two parts": {append(packed(t, text[:300]), packed(t, text[300:])...), ""},
		"filled up": {append(bytes.Clone(one), make([]byte, 1000)...), ""},
		"cut":       {one[:len(one)-9], "cut short"},
		"empty":     {nil, "cut short"},
		"damaged":   {append(bytes.Clone(one[:len(one)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "damaged"},
		"behind it": {append(bytes.Clone(one), "xyz"...), "behind its end"},
		"half":      {append(bytes.Clone(one), one[:30]...), "cut short"},
		"not one":   {text, "damaged"},
	} {
		var out bytes.Buffer
		err := gunzip(&out, bytes.NewReader(c.content), 1<<20)
		switch {
		case c.want == "" && (err != nil || !bytes.Equal(out.Bytes(), text)):
			t.Errorf("%s: %d bytes, %v", name, out.Len(), err)
		case c.want != "" && (!errors.As(err, new(*DamagedError)) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := gunzip(io.Discard, bytes.NewReader(one), 599); err == nil || !strings.Contains(err.Error(), "100 times") {
		t.Errorf("more than it may be: %v", err)
	}
	if err := gunzip(io.Discard, bytes.NewReader(one), 600); err != nil {
		t.Error(err)
	}
}

// FuzzGunzip: whatever a packed file holds, no more comes out of it than may.
func FuzzGunzip(f *testing.F) {
	f.Add(packed(f, []byte("text")))
	f.Add(append(packed(f, make([]byte, 1<<16)), packed(f, nil)...))
	f.Fuzz(func(t *testing.T, content []byte) {
		var out bytes.Buffer
		const most = 1 << 12
		if err := gunzip(&out, bytes.NewReader(content), most); err == nil && out.Len() > most || out.Len() > most+1 {
			t.Fatalf("%d bytes", out.Len())
		}
	})
}
