//go:build turbojpeg

package data

import (
	"bytes"
	"image/jpeg"
	"slices"
	"strings"
	"testing"

	"mochi/replica/augment"
)

// What identifies a decoder tells libjpeg-turbo from Go's decoder by the pixels,
// whatever their names.
func TestProbeTellsDecodersApart(t *testing.T) {
	content, err := probeFile()
	if err != nil {
		t.Fatal(err)
	}
	m, err := jpeg.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	d := NewDecoder()
	defer d.Close()
	if goes, ours := digestOf(toRGB(m, d)), probe(); goes == ours || strings.HasPrefix(ours, "none") {
		t.Errorf("image/jpeg makes %s of it, libjpeg-turbo %s", goes, ours)
	}
}

// A viewer decodes only what its views show and allocates nothing; the views
// are those of the whole image.
func TestViewerEqualsViewsOfTheWhole(t *testing.T) {
	content := jpegBytes(t, picture(160, 120, 3))
	set := &encodedSet{content: content}
	recipe, err := augment.New(augment.MoCoV2, 32)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := NewDecoder().Decode(content, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	n := recipe.ViewLen()
	b := &Batch{Query: [][]float32{make([]float32, n)}, Key: [][]float32{make([]float32, n)}}
	v := newViewer(set, recipe, 7)
	w, want := augment.NewWorker(recipe), make([]float32, n)
	for epoch := range 60 {
		task := task{ref: Ref{Sample: 0, Epoch: epoch}}
		if epoch%3 == 1 {
			task.key.group = -1
		}
		if epoch%3 == 2 {
			task.query.group = -1
		}
		if _, err := v.load(task, b); err != nil {
			t.Fatal(err)
		}
		for view, got := range [][]float32{b.Query[0], b.Key[0]} {
			if []seat{task.query, task.key}[view].group < 0 {
				continue
			}
			w.View(whole, augment.Seed(7, epoch, 0, view), want)
			if !slices.Equal(got, want) {
				t.Fatalf("epoch %d, view %d differs from that of the whole image", epoch, view)
			}
		}
	}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := v.load(task{}, b); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("an image allocates %v times", n)
	}
}

// encodedSet is one image in memory.
type encodedSet struct {
	Dataset
	content []byte
}

func (s *encodedSet) Decode(_ int, d *Decoder) (*augment.Image, error) {
	return d.Decode(s.content, 1<<20)
}
