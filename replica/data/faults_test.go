package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mochi/replica/augment"
)

// The faults that folders of images have: each one is reported once, by path,
// and another image takes the place of what was listed.
func TestFaultyFolder(t *testing.T) {
	dir := folderOf(t, "a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/sub/5.png", "locked/6.png")
	photo := jpegBytes(t, picture(60, 40, 1))
	write(t, filepath.Join(dir, "a/cut.jpg"), photo[:len(photo)/2])
	write(t, filepath.Join(dir, "a/empty.jpg"), nil)
	write(t, filepath.Join(dir, "b/huge.png"), hugePNG(pngBytes(t, picture(60, 40, 1))))
	write(t, filepath.Join(dir, "b/vanishes.png"), pngBytes(t, picture(9, 9, 1)))
	for from, to := range map[string]string{"a/round.png": "round.png", "up": dir, "itself": "itself"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	o := DefaultOptions()
	o.readDir = func(path string) ([]os.DirEntry, error) { // as for someone who is not root
		if filepath.Base(path) == "locked" {
			return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
		}
		return os.ReadDir(path)
	}
	set, err := OpenWith(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	for _, f := range set.Faults {
		faults = append(faults, strings.TrimPrefix(f.Path, dir+"/"))
		if !strings.Contains(set.Announce, f.Path) {
			t.Errorf("%s is not announced:\n%s", f.Path, set.Announce)
		}
	}
	if slices.Sort(faults); !slices.Equal(faults, []string{"a/round.png", "itself", "locked", "up"}) {
		t.Errorf("faults %v", faults)
	}
	if err := set.Strict(); err == nil || !strings.Contains(err.Error(), "4 places") {
		t.Errorf("strict: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "b/vanishes.png")); err != nil {
		t.Fatal(err)
	}

	reported := map[string]int{}
	l := NewLenient(set.Train, func(e *CorruptError) { reported[strings.TrimPrefix(e.Path, dir+"/")]++ })
	first := make([][]uint8, l.Len())
	for pass := range 3 {
		for i := range l.Len() {
			img, err := l.Decode(i, NewDecoder())
			if err != nil {
				t.Fatal(err)
			}
			if pass == 0 {
				first[i] = img.Pix
			} else if !slices.Equal(img.Pix, first[i]) {
				t.Errorf("%s is replaced by another image than before", l.Path(i))
			}
		}
	}
	if want := map[string]int{"a/cut.jpg": 1, "a/empty.jpg": 1, "b/huge.png": 1, "b/vanishes.png": 1}; fmt.Sprint(reported) != fmt.Sprint(want) {
		t.Errorf("reported %v, want %v", reported, want)
	}
	if l.CorruptSamples() != 4 {
		t.Errorf("%d samples are corrupt", l.CorruptSamples())
	}

	l.SetStrict()
	for i := range l.Len() {
		_, err := l.Decode(i, NewDecoder())
		if bad := reported[strings.TrimPrefix(l.Path(i), dir+"/")] > 0; bad != (err != nil) || bad && !strings.Contains(err.Error(), l.Path(i)) {
			t.Errorf("strict: %s: %v", l.Path(i), err)
		}
	}
}

// The image that the issue names: its header is enough to refuse it.
func TestHugeImageIsRefusedByItsHeader(t *testing.T) {
	content := hugePNG(pngBytes(t, picture(8, 8, 1)))
	d := NewDecoder()
	allocated := testing.AllocsPerRun(5, func() {
		if _, err := d.Decode(content, DefaultOptions().MaxPixels); err == nil {
			t.Fatal("decoded")
		}
	})
	if allocated > 100 || cap(d.image.Pix) > 0 {
		t.Errorf("%v allocations, a buffer of %d bytes", allocated, cap(d.image.Pix))
	}
}

// A Decoder keeps no buffer that only a very large image needs.
func TestDecoderForgetsLargeBuffers(t *testing.T) {
	d := NewDecoder()
	d.Image(4000, 4000)
	d.Content(kept + 1)
	if d.Image(10, 10); cap(d.image.Pix) > kept {
		t.Errorf("an image of 10×10 in %d bytes", cap(d.image.Pix))
	}
	if d.Content(10); cap(d.content) > kept {
		t.Errorf("10 bytes in %d", cap(d.content))
	}
	small := d.Image(10, 10)
	if again := d.Image(9, 9); &small.Pix[0] != &again.Pix[0] {
		t.Error("a small buffer is not used again")
	}
}

// Far replacements reach beyond a gap of any place, and never leave the
// listing.
func TestReplacementsReachFar(t *testing.T) {
	const n = 20_000
	set := gap{n: n, from: 3000, to: 15_000}
	l := NewLenient(set, nil)
	used := map[int]int{}
	for i := 3000; i < 15_000; i += 7 {
		img, err := l.Decode(i, NewDecoder())
		if err != nil {
			t.Fatal(err)
		}
		used[img.W]++
	}
	for w, times := range used {
		if times > 40 {
			t.Errorf("image %d stands for %d others", w, times)
		}
	}
	if _, err := NewLenient(gap{n: n, to: n}, nil).Decode(5, NewDecoder()); err == nil || !errors.As(err, new(*CorruptError)) {
		t.Errorf("nothing can be decoded: %v", err)
	}
}

// gap is a data set with a range of corrupt samples; image i is i+1 wide.
type gap struct{ n, from, to int }

func (g gap) Len() int          { return g.n }
func (g gap) Classes() int      { return 0 }
func (g gap) Label(int) int32   { return -1 }
func (g gap) Path(i int) string { return fmt.Sprint(i) }
func (g gap) Decode(i int, d *Decoder) (*augment.Image, error) {
	if i >= g.from && i < g.to {
		return nil, &CorruptError{Path: g.Path(i), Err: errors.New("gap")}
	}
	return d.Image(i+1, 1), nil
}

// With SameClass what takes the place of a sample is of its class; a class of which
// nothing can be decoded is an error, whatever other classes hold.
func TestReplacementsOfTheSameClass(t *testing.T) {
	set := labelled{n: 30, bad: map[int]bool{0: true, 3: true, 6: true, 1: true}, lost: 2}
	l := NewLenient(set, nil)
	l.SameClass()
	for i := range 30 {
		img, err := l.Decode(i, NewDecoder())
		if i%3 == 2 {
			if err == nil || !errors.As(err, new(*CorruptError)) {
				t.Errorf("sample %d: %v", i, err)
			}
			continue
		}
		if err != nil || (img.W-1)%3 != i%3 || !set.bad[i] && img.W != i+1 {
			t.Errorf("sample %d is sample %v (%v)", i, img, err)
		}
	}
}

// labelled is samples of three classes in turn, i+1 pixels wide; those of the class
// lost, and bad ones, cannot be decoded.
type labelled struct {
	n, lost int
	bad     map[int]bool
}

func (l labelled) Len() int          { return l.n }
func (l labelled) Classes() int      { return 3 }
func (l labelled) Label(i int) int32 { return int32(i % 3) }
func (l labelled) Path(i int) string { return fmt.Sprint(i) }
func (l labelled) Decode(i int, d *Decoder) (*augment.Image, error) {
	if l.bad[i] || i%3 == l.lost {
		return nil, &CorruptError{Path: l.Path(i), Err: errEmpty}
	}
	return d.Image(i+1, 1), nil
}
