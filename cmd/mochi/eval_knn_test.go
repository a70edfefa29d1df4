package main

import (
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// splits makes a folder of images train/<class> and val/<class>, each class of a
// brightness of its own.
func splits(t *testing.T, train, val int, classes ...string) string {
	t.Helper()
	dir := t.TempDir()
	for split, n := range map[string]int{"train": train, "val": val} {
		for c, class := range classes {
			for i := range n {
				img := image.NewRGBA(image.Rect(0, 0, 12, 12))
				name := filepath.Join(dir, split, class, string(rune('a'+i))+".jpg")
				pattern := 20*c + 3*i
				if split == "val" {
					pattern++
				}
				put(t, name, picture(t, img, pattern, jpg))
			}
		}
	}
	return dir
}

func TestKNNOfDamagedLeakedAndUnknownImages(t *testing.T) {
	dir := splits(t, 4, 2, "cat", "dog", "owl")
	val := filepath.Join(dir, "val")
	put(t, filepath.Join(dir, "train", "cat", "z.jpg"), []byte("\xff\xd8\xff no picture"))
	put(t, filepath.Join(val, "dog", "z.jpg"), []byte("\xff\xd8\xff no picture"))
	twin, err := os.ReadFile(filepath.Join(dir, "train", "owl", "b.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(val, "owl", "twin.jpg"), twin)
	put(t, filepath.Join(val, "yak", "a.jpg"), picture(t, image.NewRGBA(image.Rect(0, 0, 12, 12)), 77, jpg))

	args := []string{"eval", "knn", "--checkpoint", "random:resnet8", "--data", dir, "--image-size", "12", "--json"}
	one := fields(t, []string{"knn_top1", "knn_top5", "feature", "leaked_paths"}, args...)
	for name, want := range map[string]float64{
		"train": 12, "test": 8, "left_out": 2, "unlabeled": 1, "leaked": 1, "k": 5, "kernel_temperature": 0.1, "classes": 3, "image_size": 12,
	} {
		if one[name] != want {
			t.Errorf("%s is %v, want %g", name, one[name], want)
		}
	}
	if paths := one["leaked_paths"].([]any); len(paths) != 1 || !strings.Contains(paths[0].(string), "twin.jpg = ") || !strings.HasSuffix(paths[0].(string), "b.jpg") {
		t.Errorf("leaked: %v", paths)
	}
	_, _, errs := call(args...)
	for _, want := range []string{"z.jpg cannot be decoded", "left out", "k is 5, not 200", "images of 12×12 pixels", "1 test image is among the training images too", "no class of the training images"} {
		if !strings.Contains(errs, want) {
			t.Errorf("stderr does not say %q:\n%s", want, errs)
		}
	}

	if _, _, errs := call(append(args, "--k", "13")...); !strings.Contains(errs, "all 12 vote") || strings.Contains(errs, "k is 5") {
		t.Errorf("--k 13 of 12 images:\n%s", errs)
	}

	// A list is as many single evaluations.
	list := fields(t, []string{"results"}, append(args, "--k", "1,12", "--kernel-temperature", "0.1,1")...)["results"].([]any)
	if len(list) != 4 {
		t.Fatalf("%d results of 2 k and 2 temperatures", len(list))
	}
	for i, alone := range [][]string{{"1", "0.1"}, {"1", "1"}, {"12", "0.1"}, {"12", "1"}} {
		want := fields(t, nil, append(args, "--k", alone[0], "--kernel-temperature", alone[1])...)
		got := list[i].(map[string]any)
		for _, name := range []string{"knn_top1", "knn_top5", "k", "kernel_temperature"} {
			if got[name] != want[name] {
				t.Errorf("k and T %v: %s %v in a list, %v alone", alone, name, got[name], want[name])
			}
		}
	}
	few := fields(t, nil, append(args, "--images-per-class", "2")...)
	if few["train"] != 6.0 || few["images_per_class"] != 2.0 {
		t.Errorf("2 images a class: %v", few)
	}
}

func TestKNNRefusals(t *testing.T) {
	dir := splits(t, 2, 1, "cat", "dog")
	if err := os.RemoveAll(filepath.Join(dir, "val")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "val", "a.jpg"), picture(t, image.NewRGBA(image.Rect(0, 0, 12, 12)), 5, jpg))
	refused(t, 2, []string{"eval", "knn", "--checkpoint", "random:resnet8", "--data", dir, "--k", "5,0", "--kernel-temperature", "0.1,-1", "--images-per-class", "-1"},
		"test split has no labels", "a.jpg", "k:", "kernel-temperature:", "images-per-class:")
	put(t, filepath.Join(dir, "val", "cat", "a.jpg"), []byte("\xff\xd8\xff"))
	refused(t, 1, []string{"eval", "knn", "--checkpoint", "random:resnet8", "--data", dir, "--image-size", "12"}, "none of 1 can be decoded")
}
