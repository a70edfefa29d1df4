package naming

import (
	"maps"
	"slices"
	"testing"
)

func TestSplitNames(t *testing.T) {
	for name, want := range map[string]string{
		"train": "train", "Train": "train", "TRAINING": "training", "ILSVRC2012_img_train": "train", "train2017": "train", "train_images": "train", "images-train": "train",
		"val": "val", "Valid": "valid", "validation_set": "validation", "dev": "dev", "Testing": "testing", "ILSVRC2012_img_val": "val", "test.images": "test", "valset": "valset",
		"training-shoes": "", "test_tube": "", "valid_id": "", "trains": "", "constraint": "", "val_train": "", "images": "", "2017": "", "": "", "bullet train": "", "device": "",
	} {
		if got := Split(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestSplitsChosen(t *testing.T) {
	for _, c := range []struct {
		names       []string
		train, test string
		other       []string
		bad         bool
	}{
		{names: []string{"Test", "Train"}, train: "Train", test: "Test"},
		{names: []string{"test", "train", "val"}, train: "train", test: "val", other: []string{"test"}},
		{names: []string{"dev", "meta", "test", "training"}, train: "training", test: "dev", other: []string{"test"}},
		{names: []string{"Train", "train", "val"}, bad: true},
		{names: []string{"train", "training"}, bad: true},
		{names: []string{"train", "val", "val2017"}, bad: true},
		{names: []string{"train", "test", "test2", "val"}, train: "train", test: "val", other: []string{"test", "test2"}},
		{names: []string{"cat", "dog"}},
	} {
		train, test, other, err := Splits(c.names)
		slices.Sort(other)
		if (err != nil) != c.bad || !c.bad && (train != c.train || test != c.test || !slices.Equal(other, c.other)) {
			t.Errorf("%v: %q %q %q, %v", c.names, train, test, other, err)
		}
	}
}

func TestMasks(t *testing.T) {
	for _, c := range []struct{ names, masks []string }{
		{[]string{"a.jpg", "a_mask.png", "a.seg.png", "a-depth_2.png", "b_mask.png", "mask.png"}, []string{"a_mask.png", "a.seg.png", "a-depth_2.png"}},
		{[]string{"1.jpg", "2.jpg", "1.png", "2.png"}, []string{"1.png", "2.png"}},
		{[]string{"1.jpg", "1.png", "3.png"}, nil},
		{[]string{"benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png"}, []string{"benign (1)_mask.png", "benign (1)_mask_1.png"}},
		{[]string{"a_1.png", "a.png", "normal.png"}, nil},
	} {
		if got := slices.Sorted(maps.Keys(MasksAmong(c.names))); !slices.Equal(got, slices.Sorted(slices.Values(c.masks))) {
			t.Errorf("%q: masks %q, want %q", c.names, got, c.masks)
		}
	}
	if got := MaskFoldersAmong([]string{"Images", "masks", "cats"}); len(got) != 1 || !got["masks"] {
		t.Errorf("%v", got)
	}
	if got := MaskFoldersAmong([]string{"cats", "masks"}); len(got) != 0 {
		t.Errorf("%v without a folder of images", got)
	}
}

func TestSkipped(t *testing.T) {
	for name, want := range map[string]Reason{
		".x.png": Hidden, "@eaDir": System, "#Recycle": System, "lost+found": System, "Thumbs.db": System, "__MACOSX": System, "$RECYCLE.BIN": System, "System Volume Information": System,
		"trash": "", "cat.png": "", "#hashtag": "",
	} {
		if got := Skipped(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
