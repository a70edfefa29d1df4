// Command linear-views writes to stdout the views on which `mochi eval linear
// --protocol moco` trains, in the order in which its head sees them, for another
// program to train on (tools/compare/linear.py): a line of JSON with the numbers of
// images, then blocks of labels (int32, little-endian) and pixels (uint8, [n, 3, S,
// S]): the test images, then the training images of each epoch.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"

	"mochi/model/probe"
	"mochi/replica/augment"
	"mochi/replica/data"
)

func main() {
	source := flag.String("data", "", "data set")
	size := flag.Int("size", 32, "pixels of a view")
	epochs := flag.Int("epochs", 100, "how many")
	seed := flag.Uint64("seed", 1, "of the evaluation")
	flag.Parse()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	err := write(out, *source, *size, *epochs, *seed)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "linear-views:", err)
		os.Exit(1)
	}
}

func write(out io.Writer, source string, size, epochs int, seed uint64) error {
	set, err := data.Open(source)
	if err != nil {
		return err
	}
	if set.Test == nil {
		return fmt.Errorf("%s has no test split", source)
	}
	head := map[string]int{"train": set.Train.Len(), "test": set.Test.Len(), "classes": set.Train.Classes(), "size": size, "epochs": epochs}
	if err := json.NewEncoder(out).Encode(head); err != nil {
		return err
	}
	if err := block(out, set.Test, inOrder(set.Test.Len()), augment.Eval(size), nil); err != nil {
		return err
	}
	for epoch := range epochs {
		draw := func(i int) *rand.Rand { return augment.Seed(seed, epoch, i, augment.QueryView) }
		if err := block(out, set.Train, probe.Order(set.Train.Len(), seed, epoch), augment.CropFlip(size), draw); err != nil {
			return err
		}
	}
	return nil
}

// block writes the labels and the views of samples.
func block(out io.Writer, ds data.Dataset, at []int, recipe augment.Recipe, draw func(i int) *rand.Rand) error {
	for _, i := range at {
		if err := binary.Write(out, binary.LittleEndian, ds.Label(i)); err != nil {
			return err
		}
	}
	worker, decoder := augment.NewWorker(recipe), data.NewDecoder()
	defer decoder.Close()
	mean, std := recipe.Normalization()
	view, pixels := make([]float32, recipe.ViewLen()), make([]byte, recipe.ViewLen())
	plane := len(view) / augment.Channels
	for _, i := range at {
		img, err := ds.Decode(i, decoder)
		if err != nil {
			return err
		}
		var rng *rand.Rand
		if draw != nil {
			rng = draw(i)
		}
		worker.View(img, rng, view)
		for j, v := range view {
			pixels[j] = uint8(math.Round(255 * float64(v*std[j/plane]+mean[j/plane])))
		}
		if _, err := out.Write(pixels); err != nil {
			return err
		}
	}
	return nil
}

// inOrder is 0, 1, …, n − 1.
func inOrder(n int) []int {
	at := make([]int, n)
	for i := range at {
		at[i] = i
	}
	return at
}
