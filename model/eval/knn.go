// Package eval measures a trained encoder: weighted k-nearest-neighbour
// accuracy, alignment, uniformity (Wang and Isola 2020) and spread, on features that
// Features extracts.
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

// KNN classifies test features of length dim by their k nearest training
// features, each voting for its class, and returns the shares of test samples
// whose class gets the most votes and is among the five with the most (ties: the
// lower class). Training samples without a label have no vote, such test samples
// are not counted. It panics when lengths do not match.
func KNN(products engine.Products, dim int, train, test Labelled, v Vote) (top1, top5 float64) {
	n, m := len(train.Labels), len(test.Labels)
	if len(train.Features) != n*dim || len(test.Features) != m*dim || v.K < 1 || v.Classes < 1 || !(v.Temperature > 0) {
		panic(fmt.Sprintf("eval: kNN of %d and %d values for %d and %d labels × %d, %d classes, k %d, temperature %v",
			len(train.Features), len(test.Features), n, m, dim, v.Classes, v.K, v.Temperature))
	}
	if n == 0 || m == 0 {
		return 0, 0
	}
	rows := min(m, 64)
	columns := min(n, blockElements/rows)
	similarities := make([]float32, rows*columns)
	voters := make([]*voter, rows)
	for r := range voters {
		voters[r] = &voter{nearest: nearest.New(min(v.K, n)), votes: make([]float64, v.Classes)}
	}
	var counted, first, five int
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
		parallel(block, func(r int) { voters[r].vote(train.Labels, v.Temperature) })
		for r := range block {
			label := test.Labels[r0+r]
			if label < 0 {
				continue
			}
			counted++
			place := voters[r].place(label)
			if place == 0 {
				first++
			}
			if place < 5 {
				five++
			}
		}
	}
	if counted == 0 {
		return 0, 0
	}
	return float64(first) / float64(counted), float64(five) / float64(counted)
}

// voter is one test sample.
type voter struct {
	nearest *nearest.Selection
	votes   []float64 // [classes]
}

func (v *voter) vote(labels []int32, temperature float64) {
	clear(v.votes)
	near := v.nearest.Sorted()
	for _, key := range near {
		if label := labels[key.Index()]; label >= 0 {
			// Relative to the nearest, so that a small temperature cannot overflow.
			v.votes[label] += math.Exp(float64(key.Similarity()-near[0].Similarity()) / temperature)
		}
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
