package figures_test

import (
	"fmt"
	"reflect"
	"testing"

	"mochi/model/figures"
)

// numbered has another value in every field, so that a field that Add or Mean
// forgets, or takes from another one, shows.
func numbered(factor float64) figures.Figures {
	var f figures.Figures
	v := reflect.ValueOf(&f).Elem()
	for i := range v.NumField() {
		v.Field(i).SetFloat(factor * float64(i+1))
	}
	return f
}

func TestAddAndMeanKnowEveryField(t *testing.T) {
	sum := numbered(1)
	sum.Add(numbered(7))
	if want := numbered(8); sum != want {
		t.Errorf("sum %+v, want %+v", sum, want)
	}
	if got, want := sum.Mean(4), numbered(2); got != want {
		t.Errorf("mean %+v, want %+v", got, want)
	}
	if got := sum.Mean(0); got != sum {
		t.Errorf("mean over no queries: %+v", got)
	}
}

func ExampleFigures() {
	var step figures.Figures
	step.Add(figures.Figures{Loss: 40, Proxy: 6})  // a group of 8
	step.Add(figures.Figures{Loss: 56, Proxy: 10}) // one of 16
	mean := step.Mean(8 + 16)
	fmt.Printf("loss %.1f, proxy accuracy %.0f %%\n", mean.Loss, 100*mean.Proxy)
	// Output: loss 4.0, proxy accuracy 67 %
}
