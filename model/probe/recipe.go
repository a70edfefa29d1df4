package probe

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Recipe is a protocol of linear evaluation by name.
type Recipe struct {
	Name  string
	About string // for people

	Rates       []float64 // learning rates of a batch of Batch; of several one is chosen on a split of the training set
	Epochs      int
	Batch       int
	Milestones  []int   // epochs from which on the rate is Factor times as large; none: cosine to 0
	Factor      float64 // at each milestone
	WeightDecay float64
	Augmented   bool // new views of every image in every epoch
	Regression  bool // L-BFGS, the strength of its penalty chosen on a split
}

// The recipes of the command line.
const (
	Sweep  = "sweep"
	MoCo   = "moco"
	CMC    = "cmc-in100"
	LBFGS  = "lbfgs"
	batch  = 256
	epochs = 100
)

// Recipes are all of them.
func Recipes() []Recipe {
	return []Recipe{
		{
			Name: Sweep, Rates: sweepRates(), Epochs: epochs, Batch: batch,
			About: "SGD on features computed once, cosine, 13 learning rates as heads of one pass; the one that is best on a tenth of the training images is trained again on all of them",
		},
		{
			// He et al. 2020 §4.1; facebookresearch/moco@132aea9d main_lincls.py.
			Name: MoCo, Rates: []float64{30}, Epochs: epochs, Batch: batch, Milestones: []int{60, 80}, Factor: 0.1, Augmented: true,
			About: "SGD, rate 30, ×0.1 at epochs 60 and 80 of 100, batch 256, no weight decay, new crops and flips in every epoch",
		},
		{
			// HobbitLong/CMC's README and eval_moco_ins.py, with crop and flip alone.
			Name: CMC, Rates: []float64{10}, Epochs: 60, Batch: batch, Milestones: []int{30, 40, 50}, Factor: 0.2, Augmented: true,
			About: "SGD, rate 10, ×0.2 at epochs 30, 40 and 50 of 60, batch 256, no weight decay, new crops and flips in every epoch",
		},
		{
			Name: LBFGS, Regression: true,
			About: "logistic regression by L-BFGS on features of the centre crop; the penalty that is best on a tenth of the training images, then fitted to all of them",
		},
	}
}

// sweepRates are 13 in half decades, 0.001 to 1000: which one suits is a property
// of the features' scale, and published ones lie between 0.001 and 30.
func sweepRates() []float64 {
	return []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000}
}

// Find is the recipe of that name, or an error that lists them.
func Find(name string) (Recipe, error) {
	all := Recipes()
	i := slices.IndexFunc(all, func(r Recipe) bool { return r.Name == name })
	if i < 0 {
		return Recipe{}, fmt.Errorf("%q is not known; there are %s", name, strings.Join(Names(), ", "))
	}
	return all[i], nil
}

// Names lists the recipes.
func Names() (names []string) {
	for _, r := range Recipes() {
		names = append(names, r.Name)
	}
	return names
}

// For is the recipe of another length: its milestones keep their shares of it.
func (r Recipe) For(epochs int) Recipe {
	if epochs == 0 || r.Regression {
		return r
	}
	r.Milestones = slices.Clone(r.Milestones)
	for i, m := range r.Milestones {
		r.Milestones[i] = m * epochs / r.Epochs
	}
	r.Epochs = epochs
	return r
}

// Rate is the learning rate of an epoch, counted from 0.
func (r Recipe) Rate(base float64, epoch int) float64 {
	if len(r.Milestones) == 0 {
		return base * (1 + math.Cos(math.Pi*float64(epoch)/float64(r.Epochs))) / 2
	}
	for _, m := range r.Milestones {
		if epoch >= m {
			base *= r.Factor
		}
	}
	return base
}
