package data

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The layouts of public data sets, made small: what is trained and evaluated on, and
// that the counts add up to the files that there are.
func TestPublicLayouts(t *testing.T) {
	img := func(dir string) func(name string) {
		return func(name string) { write(t, filepath.Join(dir, name), drawing(t, 1+len(name)%7)) }
	}
	for name, c := range map[string]struct {
		make  func(dir string)
		files int
		want  []string
	}{
		"ImageNet": {func(dir string) {
			put := img(dir)
			for _, class := range []string{"n01440764", "n01443537"} {
				for i := range 3 {
					put(fmt.Sprintf("ILSVRC/Data/CLS-LOC/train/%s/%s_%d.JPEG", class, class, i))
				}
				put("ILSVRC/Data/CLS-LOC/val/" + class + "/ILSVRC2012_val_" + class + ".JPEG")
			}
			put("ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_1.JPEG")
			write(t, filepath.Join(dir, "ILSVRC/Annotations/CLS-LOC/train/n01440764/1.xml"), []byte("<a/>"))
			write(t, filepath.Join(dir, "ILSVRC/ImageSets/CLS-LOC/train_cls.txt"), []byte("1"))
			write(t, filepath.Join(dir, "LOC_sample_submission.csv"), []byte("1"))
		}, 12, []string{"trained on: 6 images, 2 classes", "evaluated on: 2 images", "found: 12 = 6 for training + 2 for tests + 4 left out"}},
		"Tiny-ImageNet": {func(dir string) {
			put := img(dir)
			for _, class := range []string{"n01443537", "n01629819", "n01641577"} {
				put("tiny-imagenet-200/train/" + class + "/images/" + class + "_0.JPEG")
				write(t, filepath.Join(dir, "tiny-imagenet-200/train", class, class+"_boxes.txt"), []byte("1"))
			}
			for i := range 3 {
				put(fmt.Sprintf("tiny-imagenet-200/val/images/val_%d.JPEG", i))
			}
			put("tiny-imagenet-200/test/images/test_0.JPEG")
			write(t, filepath.Join(dir, "tiny-imagenet-200/val/val_annotations.txt"), []byte("val_0.JPEG\tn01629819\t0\t32\t44\t62\nval_1.JPEG\tn01641577\t5\t5\t6\t6\r\nval_7.JPEG\tn01641577\t5\t5\t6\t6\nbroken\n"))
			write(t, filepath.Join(dir, "tiny-imagenet-200/wnids.txt"), []byte("1"))
		}, 12, []string{"trained on: 3 images, 3 classes", "evaluated on: 3 images, of which 1 is of no class", "found: 12 = 3 for training + 3 for tests + 1 with labels or many images + 5 left out"}},
		"Tiny-ImageNet without labels": {func(dir string) {
			put := img(dir)
			put("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG")
			put("tiny-imagenet-200/train/n01629819/images/n01629819_0.JPEG")
			put("tiny-imagenet-200/val/images/val_0.JPEG")
			write(t, filepath.Join(dir, "tiny-imagenet-200/val/val_annotations.txt"), []byte("1"))
		}, 4, []string{"trained on: 2 images, 2 classes", "evaluated on: nothing, since the test split has no labels", "found: 4 = 2 for training + 1 for tests + 1 left out"}},
		"ImageNet, flat, as Kaggle has it": {func(dir string) {
			put := img(dir)
			for i, class := range []string{"n01440764", "n01443537"} {
				put(fmt.Sprintf("ILSVRC/Data/CLS-LOC/train/%s/%s_%d.JPEG", class, class, i))
				put(fmt.Sprintf("ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_0000000%d.JPEG", i))
			}
			put("ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_1.JPEG")
			write(t, filepath.Join(dir, "ILSVRC/Annotations/CLS-LOC/val/1.xml"), []byte("<a/>"))
			write(t, filepath.Join(dir, "ILSVRC/ImageSets/CLS-LOC/train_cls.txt"), []byte("1"))
			write(t, filepath.Join(dir, "LOC_val_solution.csv"), []byte("ImageId,PredictionString\nILSVRC2012_val_00000000,n01443537 85 1 499 272 \nILSVRC2012_val_00000001,n01440764 1 1 2 2 n01440764 3 3 4 4\n"))
			write(t, filepath.Join(dir, "LOC_sample_submission.csv"), []byte("1"))
		}, 9, []string{"trained on: 2 images, 2 classes", "evaluated on: 2 images", "found: 9 = 2 for training + 2 for tests + 1 with labels or many images + 4 left out"}},
		"ImageNet, flat": {func(dir string) {
			put := img(dir)
			put("train/n01440764/n01440764_1.JPEG")
			put("train/n01443537/n01443537_1.JPEG")
			put("val/ILSVRC2012_val_00000001.JPEG")
			write(t, filepath.Join(dir, "ILSVRC2012_devkit_t12.tar.gz"), []byte("1"))
		}, 4, []string{"trained on: 2 images, 2 classes", "evaluated on: nothing, since the test split has no labels", "found: 4 = 2 for training + 1 for tests + 1 left out"}},
		"ImageNet, by class, with a solution": {func(dir string) {
			put := img(dir)
			for _, split := range []string{"train", "val"} {
				put(split + "/n01440764/1.JPEG")
				put(split + "/n01443537/2.JPEG")
			}
			write(t, filepath.Join(dir, "LOC_val_solution.csv"), []byte("ImageId,PredictionString\n1,n01443537 85\n2,n01440764 1\n"))
		}, 5, []string{"trained on: 2 images, 2 classes", "evaluated on: 2 images", "found: 5 = 2 for training + 2 for tests + 1 left out"}},
		"EMNIST": {func(dir string) {
			for split, n := range map[string]int{"train": 26, "test": 5} {
				labels := make([]uint8, n)
				for i := range labels {
					labels[i] = uint8(1 + i)
				}
				write(t, filepath.Join(dir, "EMNIST/raw/emnist-letters-"+split+"-images-idx3-ubyte"), idxBytes([]int{n, 2, 2}, ramp(4*n, 0)))
				write(t, filepath.Join(dir, "EMNIST/raw/emnist-letters-"+split+"-labels-idx1-ubyte"), idxBytes([]int{n}, labels))
			}
			write(t, filepath.Join(dir, "EMNIST/raw/emnist-letters-mapping.txt"), []byte("1 65 97"))
		}, 5, []string{"trained on: 26 images, 26 classes", "evaluated on: 5 images", "found: 5 = 4 with labels or many images + 1 left out"}},
		"images alone": {func(dir string) {
			put := img(dir)
			put("b.png")
			put("a.png")
			write(t, filepath.Join(dir, "index.csv"), []byte("1"))
		}, 3, []string{"trained on: 2 images, no classes", "found: 3 = 2 for training + 1 left out"}},
		"YOLO": {func(dir string) {
			put := img(dir)
			put("images/train/1.jpg")
			put("images/val/2.jpg")
			write(t, filepath.Join(dir, "labels/train/1.txt"), []byte("0 1 1 1 1"))
			write(t, filepath.Join(dir, "data.yaml"), []byte("a: b"))
		}, 4, []string{"trained on: 1 image, no classes", "found: 4 = 1 for training + 1 for tests + 2 left out"}},
	} {
		dir := t.TempDir()
		c.make(dir)
		o := DefaultOptions()
		o.CountAll = true
		set, err := OpenWith(dir, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		verdict := set.Verdict(0, 0)
		for _, want := range c.want {
			if !slices.ContainsFunc(verdict, func(line string) bool { return strings.Contains(line, want) }) {
				t.Errorf("%s: %q is not said:\n%s", name, want, strings.Join(verdict, "\n"))
			}
		}
		if set.Account.Found != c.files || set.Account.Unruled() != 0 {
			t.Errorf("%s: %d of %d files found", name, set.Account.Found, c.files)
		}
	}
}

// What is no folder of images is recognised, with what to do.
func TestWhatAFolderHolds(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    string
	}{
		"batches.meta": {"\x80\x02}q\x01", "CIFAR as Python pickles"}, "train-00000-of-00001.parquet": {"PAR1", "parquet"}, "train.tfrecord-00000-of-00010": {"\x00", "TFRecord"},
		"images.h5": {"\x89HDF\r\n", "HDF5"}, "data.mdb": {"\x00\x00", "LMDB"}, "x.npz": {"PK\x03\x04", "NumPy"}, "photos.zip": {"PK\x03\x04", "unpack it"}, "photos.tar.gz": {"\x1f\x8b", "cut short"}, "photos.tar.xz": {"\xfd7zXZ", "tar archive"},
		"IMG_1.HEIC": {"\x00\x00\x00\x18ftypheic", "convert them"}, "a.mp4": {"\x00", "films"}, "strange.q7": {"\x01\x02\x00", "no known kind"}, "train.pt": {"PK\x03\x04", "unpack it"},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "inner", name), []byte(c.content))
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "inner/"+name) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
