// Package eval measures a trained encoder by its features: weighted
// k-nearest-neighbour accuracy, alignment, uniformity (Wang and Isola 2020) and
// spread.
//
// Cost of kNN for n training and m test features of length d: one m×n×d
// product in blocks of at most 16 MiB, and a selection of k among n a test
// sample. Of uniformity: half an n×n×d product.
package eval

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"mochi/model/engine"
	"mochi/model/nearest"
)

// The CIFAR reference's settings of KNN.
const (
	DefaultK           = 200
	DefaultTemperature = 0.1
)

// blockElements bounds one block of similarities, in float32.
const blockElements = 4 << 20

// Labelled is features with their classes.
type Labelled struct {
	Features []float32 // [n, dim], rows of length 1
	Labels   []int32   // [n] in [0, classes), −1 where unknown
}

// Vote is how the nearest training features vote.
type Vote struct {
	Classes     int     // at least 1
	K           int     // nearest features that vote, at least 1; lowered to their number
	Temperature float64 // above 0; the weight of a vote is e^{similarity/temperature}
}

// Accuracy is the shares of samples whose class is the first, and one of the
// first five.
type Accuracy struct{ Top1, Top5 float64 }

// KNN classifies test features of length dim by their nearest training features,
// each voting for its class: for each of the votes, of one pass over the
// similarities, the shares of test samples whose class gets the most votes and is
// among the five with the most (ties: the lower class). Training samples without a
// label have no vote, such test samples are not counted. It panics when lengths do
// not match.
func KNN(products engine.Products, dim int, train, test Labelled, votes ...Vote) []Accuracy {
	n, m := len(train.Labels), len(test.Labels)
	most, classes := 1, 1
	for _, v := range votes {
		if len(train.Features) != n*dim || len(test.Features) != m*dim || v.K < 1 || v.Classes < 1 || !(v.Temperature > 0) {
			panic(fmt.Sprintf("eval: kNN of %d and %d values for %d and %d labels × %d, %d classes, k %d, temperature %v",
				len(train.Features), len(test.Features), n, m, dim, v.Classes, v.K, v.Temperature))
		}
		most, classes = max(most, v.K), max(classes, v.Classes)
	}
	result := make([]Accuracy, len(votes))
	if n == 0 || m == 0 {
		return result
	}
	rows := min(m, 64)
	columns := min(n, blockElements/rows)
	similarities := make([]float32, rows*columns)
	voters := make([]*voter, rows)
	for r := range voters {
		voters[r] = &voter{nearest: nearest.New(min(most, n)), votes: make([]float64, classes), places: make([]int, len(votes))}
	}
	counted := 0
	first, five := make([]int, len(votes)), make([]int, len(votes))
	for r0 := 0; r0 < m; r0 += rows {
		block := min(rows, m-r0)
		for c0 := 0; c0 < n; c0 += columns {
			width := min(columns, n-c0)
			products.NT(block, width, dim, test.Features[r0*dim:(r0+block)*dim], train.Features[c0*dim:(c0+width)*dim], similarities[:block*width])
			parallel(block, func(r int) {
				if c0 == 0 {
					voters[r].nearest.Reset()
				}
				voters[r].nearest.Scan(similarities[r*width:(r+1)*width], c0)
			})
		}
		parallel(block, func(r int) {
			if label := test.Labels[r0+r]; label >= 0 {
				voters[r].vote(train.Labels, label, votes)
			}
		})
		for r := range block {
			if test.Labels[r0+r] < 0 {
				continue
			}
			counted++
			for i, place := range voters[r].places {
				if place == 0 {
					first[i]++
				}
				if place < 5 {
					five[i]++
				}
			}
		}
	}
	for i := range result {
		if counted > 0 {
			result[i] = Accuracy{float64(first[i]) / float64(counted), float64(five[i]) / float64(counted)}
		}
	}
	return result
}

// voter is one test sample.
type voter struct {
	nearest *nearest.Selection
	votes   []float64 // [classes]
	places  []int     // of the sample's class, by vote
}

// vote takes all votes among the neighbours found.
func (v *voter) vote(labels []int32, mine int32, votes []Vote) {
	near := v.nearest.Sorted()
	for i, how := range votes {
		clear(v.votes)
		for _, key := range near[:min(how.K, len(near))] {
			if label := labels[key.Index()]; label >= 0 {
				// Relative to the nearest, so that a small temperature cannot overflow.
				v.votes[label] += math.Exp(float64(key.Similarity()-near[0].Similarity()) / how.Temperature)
			}
		}
		v.places[i] = v.place(mine)
	}
}

// place is the number of classes with more votes than label, ties to the
// lower class; a class without a vote comes last.
func (v *voter) place(label int32) int {
	mine := v.votes[label]
	if mine == 0 {
		return len(v.votes) + 5
	}
	place := 0
	for class, votes := range v.votes {
		if votes > mine || votes == mine && class < int(label) {
			place++
		}
	}
	return place
}

// parallel calls f(0) … f(n−1) on all cores.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}
