package naming

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// The words for splits. Of several test splits the first in this order is taken.
var (
	TrainWords = []string{"train", "training", "trainset"}
	TestWords  = []string{"val", "valid", "validation", "valset", "dev", "test", "testing", "testset"}
)

// besideSplit are words that may stand beside a split's in a name:
// ILSVRC2012_img_train, train_images, val-set.
var besideSplit = []string{"ilsvrc", "img", "imgs", "image", "images", "set", "data", "dataset", "split", "jpg", "jpeg", "png", "folder", "imagenet", "t"}

// Split is the word for a split that a name stands for, "" for none: in any case,
// with years and the words that are usual beside it.
func Split(name string) string {
	found := ""
	for _, word := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("_-. ", r) }) {
		word = strings.TrimRight(word, "0123456789")
		switch {
		case slices.Contains(TrainWords, word), slices.Contains(TestWords, word):
			if found != "" {
				return ""
			}
			found = word
		case word != "" && !slices.Contains(besideSplit, word):
			return ""
		}
	}
	return found
}

// IsTrain says whether a name stands for a training split.
func IsTrain(name string) bool { return slices.Contains(TrainWords, Split(name)) }

// IsTest says whether a name stands for a test split.
func IsTest(name string) bool { return slices.Contains(TestWords, Split(name)) }

// Splits are the names among some that stand for a training split, and of one
// test split. other are further test splits, which are not used. It is an error when
// several stand for the same one.
func Splits(names []string) (train, test string, other []string, err error) {
	pick := func(words []string) (string, []string, error) {
		var all []string
		chosen := ""
		for _, word := range words {
			var of []string
			for _, name := range names {
				if Split(name) == word {
					of = append(of, name)
				}
			}
			if len(of) > 1 && chosen == "" {
				return "", nil, fmt.Errorf("both %s and %s look like the split %s: give the one that is meant the name %s, and take the other away", of[0], of[1], word, word)
			}
			if all = append(all, of...); chosen == "" && len(of) == 1 {
				chosen = of[0]
			}
		}
		return chosen, slices.DeleteFunc(all, func(s string) bool { return s == chosen }), nil
	}
	train, others, err := pick(TrainWords)
	if err != nil {
		return "", "", nil, err
	}
	if len(others) > 0 {
		return "", "", nil, fmt.Errorf("both %s and %s look like the training split: keep one", train, others[0])
	}
	test, other, err = pick(TestWords)
	return train, test, other, err
}

// SplitOfShard is the word for a split in the name of a shard, without its extension:
// imagenet-val-000012, Training_3; "" for none.
func SplitOfShard(name string) string {
	for word := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("_-. ", r) }) {
		word = strings.TrimRight(word, "0123456789")
		if slices.Contains(TrainWords, word) || slices.Contains(TestWords, word) {
			return word
		}
	}
	return ""
}

// Beside is the name, of some, that differs from that of a training split by its word for
// a test split alone, as val.csv from train.csv: the first one in the order of TestWords,
// "" for none.
func Beside(name string, names []string) string {
	form, word := formOf(name)
	if !slices.Contains(TrainWords, word) {
		return ""
	}
	for _, test := range TestWords {
		for _, other := range names {
			if f, w := formOf(other); w == test && f == form {
				return other
			}
		}
	}
	return ""
}

// formOf is a name with the word for a split taken out, and that word; "" for none.
func formOf(name string) (form, split string) {
	ext := path.Ext(name)
	words := strings.FieldsFunc(strings.ToLower(strings.TrimSuffix(name, ext)), func(r rune) bool { return strings.ContainsRune("_-. ", r) })
	for i, word := range words {
		word, digits := strings.TrimRight(word, "0123456789"), ""
		if digits = words[i][len(word):]; split == "" && (slices.Contains(TrainWords, word) || slices.Contains(TestWords, word)) {
			words[i], split = "*"+digits, word
		}
	}
	return strings.Join(words, "-") + strings.ToLower(ext), split
}
