package library

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCache(t *testing.T) {
	c := Cache{filepath.Join(t.TempDir(), "kernels")}
	compiled := 0
	get := func(key string) []byte {
		t.Helper()
		image, note, err := c.Get(key, func() ([]byte, error) { compiled++; return []byte("image of " + key), nil })
		if note != nil || err != nil {
			t.Fatal(note, err)
		}
		if want := "image of " + key; string(image) != want {
			t.Fatalf("%q, want %q", image, want)
		}
		return image
	}
	get("a")
	get("a")
	get("b")
	if compiled != 2 {
		t.Errorf("two programs, asked for three times, were compiled %d times", compiled)
	}
	files, err := filepath.Glob(filepath.Join(c.Folder, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("the folder has %v, %v", files, err)
	}
	// Damage of any kind leads to a new compilation, and is repaired.
	path := filepath.Join(c.Folder, name("a"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[3] ^= 1
	for _, damaged := range [][]byte{nil, whole[:5], whole[:len(whole)-1], flipped} {
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		before := compiled
		get("a")
		get("a")
		if compiled != before+1 {
			t.Errorf("a file of %d damaged bytes was compiled %d times", len(damaged), compiled-before)
		}
	}
}

func TestCacheFails(t *testing.T) {
	want := errors.New("syntax error")
	c := Cache{t.TempDir()}
	if _, _, err := c.Get("a", func() ([]byte, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Folder, "*")); len(left) > 0 {
		t.Errorf("a failed compilation leaves %v", left)
	}
	// A file where the folder should be: the program is there, and a note.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	image, note, err := Cache{file}.Get("a", func() ([]byte, error) { return []byte("x"), nil })
	if string(image) != "x" || note == nil || err != nil {
		t.Errorf("%q, note %v, error %v", image, note, err)
	}
}
