package data

import (
	"math/rand/v2"

	"mochi/replica/augment"
)

// viewer makes views of samples for one goroutine. The views are drawn as
// soon as an image's size is known, so that only the part that they show
// need be decoded, once for both. It allocates nothing a sample.
type viewer struct {
	data    Dataset
	recipe  augment.Recipe
	seed    uint64
	worker  *augment.Worker
	decoder *Decoder
	pcg     rand.PCG
	rng     *rand.Rand

	task       task // the sample being made
	w, h       int  // the size for which query and key are drawn, 0 for none
	query, key augment.Params
}

func newViewer(d Dataset, recipe augment.Recipe, seed uint64) *viewer {
	v := &viewer{data: d, recipe: recipe, seed: seed, worker: augment.NewWorker(recipe), decoder: NewDecoder()}
	v.rng = rand.New(&v.pcg)
	v.decoder.Region = v.draw
	return v
}

// load decodes one sample and writes its views to their seats in b.
func (v *viewer) load(t task, b *Batch) (views int, err error) {
	v.task, v.w, v.h = t, 0, 0
	defer v.decoder.Trim()
	img, err := v.data.Decode(t.ref.Sample, v.decoder)
	if err != nil {
		return 0, err
	}
	if img.W != v.w || img.H != v.h { // a source that asks for no region
		v.draw(img.W, img.H)
	}
	return v.write(img, v.query, b.Query, t.query) + v.write(img, v.key, b.Key, t.key), nil
}

// write makes one view, where it is wanted.
func (v *viewer) write(img *augment.Image, p augment.Params, groups [][]float32, at seat) (views int) {
	if at.group < 0 {
		return 0
	}
	n := v.recipe.ViewLen()
	v.worker.Apply(img, p, groups[at.group][at.index*n:(at.index+1)*n])
	return 1
}

// draw draws the task's views of an image of w×h pixels and returns the part
// that they show. What is drawn for one view does not depend on the other, so
// a sample's views are the same whether they are made here or on two replicas.
func (v *viewer) draw(w, h int) augment.Rect {
	v.w, v.h = w, h
	var shown augment.Rect
	one := func(p *augment.Params, at seat, view int) {
		if at.group >= 0 {
			augment.Reseed(&v.pcg, v.seed, v.task.ref.Epoch, v.task.ref.Sample, view)
			*p = v.recipe.Draw(w, h, v.rng)
			shown = shown.Union(p.Crop)
		}
	}
	one(&v.query, v.task.query, augment.QueryView)
	one(&v.key, v.task.key, augment.KeyView)
	return shown
}
