package data

import (
	"archive/zip"
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// zipped is an archive of members, the first of them stored, the others deflated.
func zipped(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate}
		if i == 0 {
			h.Method = zip.Store
		}
		out, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A zip archive is what the folder that it unpacks to would be.
func TestZip(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "photos.ZIP")
	content := zipped(t, member{"photos/train/cat/1.png", drawing(t, 1)}, member{"photos/train/dog/2.png", drawing(t, 2)}, member{`photos\train\cat\3.png`, drawing(t, 3)},
		member{"photos/val/dog/4.png", drawing(t, 4)}, member{"__MACOSX/photos/._1.png", []byte("x")}, member{"photos/notes.txt", []byte("x")})
	write(t, path, content)
	set, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(widths(t, set.Train), []int{1, 3, 2}) || !slices.Equal(labelsOf(set.Train), []int32{0, 0, 1}) || !slices.Equal(widths(t, set.Test), []int{4}) || set.Test.Label(0) != 1 || set.Kind != "zip" {
		t.Errorf("%s", set.Announce)
	}
	if want := "members of the archive found: 6 = 3 for training + 1 for tests + 2 left out"; set.Account.Sum() != want {
		t.Errorf("%s, want %s", set.Account.Sum(), want)
	}
	// Damage of one member is that sample's.
	at := bytes.Index(content, []byte("photos/train/cat/1.png")) + len("photos/train/cat/1.png") + 20
	content[at] ^= 1
	write(t, path, content)
	if set, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Train.Decode(0, NewDecoder()); err == nil || !strings.Contains(err.Error(), "photos/train/cat/1.png") || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a damaged member: %v", err)
	}
	if _, err := set.Train.Decode(1, NewDecoder()); err != nil {
		t.Error(err)
	}
	write(t, path, content[:len(content)-30])
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("an archive that is cut short: %v", err)
	}
}

// FuzzZip: whatever an archive holds, each of its samples is read or refused.
func FuzzZip(f *testing.F) {
	f.Add(zipped(f, member{"a/1.png", drawing(f, 1)}, member{"b/2.png", drawing(f, 2)}, member{"b/2.cls", []byte("3")}))
	f.Add(zipped(f, member{"a/1.png", nil}))
	path := filepath.Join(f.TempDir(), "x.zip")
	f.Fuzz(func(t *testing.T, content []byte) {
		write(t, path, content)
		set, err := OpenWith(path, Options{MaxPixels: 1 << 12, MaxBytes: 1 << 16})
		if err != nil {
			return
		}
		d := NewDecoder()
		for i := range set.Train.Len() {
			if img, err := set.Train.Decode(i, d); err == nil && img.W*img.H > 1<<12 {
				t.Fatalf("%d×%d", img.W, img.H)
			}
		}
	})
}
