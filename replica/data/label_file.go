package data

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"mochi/coordinator/smallfile"
	"mochi/replica/data/naming"
)

// Some public data sets have their test images in one folder, and a file with their
// labels: Tiny-ImageNet val/val_annotations.txt, ImageNet as Kaggle has it
// LOC_val_solution.csv, some folders above.
const (
	tinyLabels   = "val_annotations.txt"
	kaggleLabels = "LOC_val_solution.csv"
)

// maxLabelFile is the largest such file, bytes: ImageNet's has 2 million.
const maxLabelFile = 64 << 20

// labelFile finds the file with the labels of a test split: in its folder, or in those
// above; "" for none.
func labelFile(test string, above []string) string {
	candidates := []string{filepath.Join(test, tinyLabels), filepath.Join(test, kaggleLabels)}
	for _, dir := range slices.Backward(above) {
		candidates = append(candidates, filepath.Join(dir, kaggleLabels))
	}
	for _, file := range candidates {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return ""
}

// labelled gives the images of a test split the classes that a file of labels says, where
// its folders say none of the classes of the training images, and counts the file.
func (a *Account) labelled(test *folderSplit, classes []string, file string) (notes []string) {
	if len(test.samples) == 0 || slices.ContainsFunc(test.classes, func(c string) bool { return slices.Contains(classes, c) }) {
		a.leave(naming.Text, 1, 0, file)
		return nil
	}
	content, err := smallfile.Read(file, maxLabelFile)
	of, bad := labelsIn(content, strings.HasSuffix(file, kaggleLabels))
	if err == nil && len(of) == 0 {
		err = errors.New("no line of it is understood")
	}
	if err != nil {
		a.leave(naming.Text, 1, 0, file)
		return []string{fmt.Sprintf("%s is not used: %v", file, err)}
	}
	a.used(0, 0, 1)
	if without := test.label(of); without > 0 {
		notes = append(notes, fmt.Sprintf("of %s, %s not named there and without a class", plural(len(test.samples), "test image", "test images"), plural(without, "is", "are")))
	}
	if bad > 0 {
		notes = append(notes, fmt.Sprintf("of its lines, %s not understood", plural(bad, "is", "are")))
	}
	return append([]string{"labels of the test images: " + file}, notes...)
}

// label gives the samples the classes of their names, without folders and ending. It
// returns how many have none.
func (s *folderSplit) label(of map[string]string) (without int) {
	number := make(map[string]int32)
	s.classes = nil
	for i := range s.samples {
		f := &s.samples[i]
		base := path.Base(f.path)
		class, said := of[strings.TrimSuffix(base, path.Ext(base))]
		if f.class = -1; !said {
			without++
			continue
		}
		c, known := number[class]
		if !known {
			c = int32(len(s.classes))
			number[class] = c
			s.classes = append(s.classes, class)
		}
		f.class = c
	}
	return without
}

// labelsIn are the classes of images, by their names without an ending: columns separated
// by tabs, of which the first two count, or Kaggle's lines NAME,CLASS and boxes. bad is how
// many lines are neither.
func labelsIn(content []byte, kaggle bool) (of map[string]string, bad int) {
	of = make(map[string]string)
	separator := "\t"
	if kaggle {
		separator = ","
	}
	first := true
	for line := range strings.Lines(string(bytes.TrimPrefix(content, []byte("\ufeff")))) {
		line = strings.TrimRight(line, "\r\n")
		name, rest, ok := strings.Cut(line, separator)
		fields := strings.Fields(rest)
		header := first && strings.HasPrefix(line, "ImageId")
		first = false
		switch {
		case line == "" || header:
		case !ok || name == "" || len(fields) == 0:
			bad++
		default:
			of[strings.TrimSuffix(name, path.Ext(name))] = norm.NFC.String(fields[0])
		}
	}
	return of, bad
}
