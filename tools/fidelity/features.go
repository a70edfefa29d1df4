package main

import (
	"fmt"

	"mochi/model/eval"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// featuresSpec asks for what is measured of features in a file: float32, n
// training rows, then m test rows of length Dim; pairs are the first m training
// rows with the test rows.
type featuresSpec struct {
	File                string
	Dim, N, M, K        int
	Temperature         float64
	Classes             int
	TrainLabels, Labels []int32
	Uniformity, KNN     bool
}

func showFeatures(s featuresSpec, out *tensors) error {
	values, err := readFloats(s.File)
	if err != nil {
		return err
	}
	if len(values) != (s.N+s.M)*s.Dim {
		return fmt.Errorf("%s: %d values, want %d rows of %d", s.File, len(values), s.N+s.M, s.Dim)
	}
	eng, err := openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	train, test := values[:s.N*s.Dim], values[s.N*s.Dim:]
	if s.KNN {
		accuracy := eval.KNN(eng.Products(), s.Dim,
			eval.Labelled{Features: train, Labels: s.TrainLabels}, eval.Labelled{Features: test, Labels: s.Labels},
			eval.Vote{Classes: s.Classes, K: s.K, Temperature: s.Temperature})
		add(out, "knn", []float64{accuracy[0].Top1, accuracy[0].Top5}, 2)
	}
	add(out, "alignment", []float64{eval.Alignment(train[:len(test)], test, s.Dim)}, 1)
	if s.Uniformity {
		add(out, "uniformity", []float64{eval.Uniformity(eng.Products(), train, s.Dim)}, 1)
	}
	add(out, "spread", eval.Spread(train, s.Dim), s.Dim)
	return nil
}

// evalSpec asks for the images of evaluation.
type evalSpec struct {
	Data string
	Size int
	Test bool // the test split, else the training split
	// Recipe, if not "", draws two views of each image, as geometry does.
	Recipe string
	Seed   uint64
}

// showEval writes views [n, 3, S, S] and labels [n].
func showEval(s evalSpec, out *tensors) error {
	set, err := data.Open(s.Data)
	if err != nil {
		return err
	}
	images := set.Train
	if s.Test {
		images = set.Test
	}
	recipe, names := augment.Eval(s.Size), []string{"views"}
	if s.Recipe != "" {
		if recipe, err = augment.New(s.Recipe, s.Size); err != nil {
			return err
		}
		names = []string{"queries", "keys"}
	}
	worker, d := augment.NewWorker(recipe), data.NewDecoder()
	defer d.Close()
	n := recipe.ViewLen()
	labels := make([]int32, images.Len())
	for view, name := range names {
		views := make([]float32, images.Len()*n)
		for i := range labels {
			img, err := images.Decode(i, d)
			if err != nil {
				return err
			}
			labels[i] = images.Label(i)
			worker.View(img, augment.Seed(s.Seed, 0, i, view), views[i*n:(i+1)*n])
		}
		add(out, name, views, len(labels), augment.Channels, s.Size, s.Size)
	}
	add(out, "labels", labels, len(labels))
	return nil
}
