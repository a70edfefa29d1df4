package data_test

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"

	"mochi/replica/augment"
	"mochi/replica/data"
	"mochi/replica/data/sampler"
)

// Load the first step of a job with one group of two samples.
func Example() {
	dir, err := twoClasses()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	set, err := data.Open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	recipe, err := augment.New(augment.CIFAR, 8)
	if err != nil {
		fmt.Println(err)
		return
	}
	loader := data.NewLoader(set.Train, recipe, data.LoaderConfig{Seed: 1})
	defer loader.Close()

	refs := sampler.New(set.Train.Len(), 1).Batch(0, 2)
	if err := loader.Submit(data.Request{Step: 1, Query: [][]data.Ref{refs}, Key: [][]data.Ref{refs}}); err != nil {
		fmt.Println(err)
		return
	}
	batch, _, err := loader.Next(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Kind, set.Info.Classes, "classes; step", batch.Step, "has", len(batch.Query[0]), "values of query views")
	batch.Release()
	// Output: folder 2 classes; step 1 has 384 values of query views
}

// twoClasses makes a folder with one image in each of two classes.
func twoClasses() (string, error) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		return "", err
	}
	for _, class := range []string{"cat", "dog"} {
		if err := os.Mkdir(filepath.Join(dir, class), 0o755); err != nil {
			return "", err
		}
		f, err := os.Create(filepath.Join(dir, class, "1.png"))
		if err != nil {
			return "", err
		}
		if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 10, 10))); err != nil {
			return "", err
		}
		if err := f.Close(); err != nil {
			return "", err
		}
	}
	return dir, nil
}
