package data

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"

	"mochi/coordinator/protocol/config"
	"mochi/coordinator/smallfile"
	"mochi/replica/augment"
)

// ImageNet100 is the name that stands for the list of 100 classes of Tian et al.
// (CMC, 2019), in the order of HobbitLong/CMC's imagenet100.txt at bc687a26. Other
// lists are called so, too: the digest tells them apart.
const ImageNet100 = "imagenet100"

//go:embed imagenet100.txt
var imageNet100 string

// ClassList is the ids of the classes that a data set is cut down to, sorted, each
// once.
type ClassList []string

// ReadClasses reads what --classes may be: imagenet100, a file with an id a line
// (WordNet ids may be followed by words; lines that begin with # do not count), or
// ids with commas between them, as config.yaml has them.
func ReadClasses(text string) (ClassList, error) {
	if text == ImageNet100 {
		return classList(strings.Fields(imageNet100))
	}
	content, err := smallfile.Read(text, 1<<20)
	switch {
	case errors.Is(err, os.ErrNotExist) && strings.Contains(text, ","):
		return classList(strings.Split(text, ","))
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: no such file; want a file with an id a line, or %s", text, ImageNet100)
	case err != nil:
		return nil, fmt.Errorf("%w; want a file with an id a line, or %s", err, ImageNet100)
	}
	var ids []string
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if first, _, more := strings.Cut(line, " "); more && isWordNet(strings.TrimRight(first, ":,")) {
			line = strings.TrimRight(first, ":,")
		}
		ids = append(ids, line)
	}
	list, err := classList(ids)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return list, nil
}

// isWordNet says whether an id is one of WordNet's, as ImageNet has them: n01440764.
func isWordNet(id string) bool {
	_, err := strconv.ParseUint(strings.TrimPrefix(id, "n"), 10, 64)
	return err == nil && len(id) == 9 && id[0] == 'n'
}

func classList(ids []string) (ClassList, error) {
	for i, id := range ids {
		ids[i] = norm.NFC.String(id) // as the classes of data sets are
	}
	list := ClassList(slices.Sorted(slices.Values(ids)))
	for i, id := range list {
		switch {
		case id == "" || strings.ContainsAny(id, ",\n\r"):
			return nil, fmt.Errorf("%q is no id of a class", id)
		case i > 0 && id == list[i-1]:
			return nil, fmt.Errorf("%s is there twice", id)
		}
	}
	if len(list) < 2 {
		return nil, fmt.Errorf("%s: at least 2 are needed", plural(len(list), "class", "classes"))
	}
	return list, nil
}

// String is the ids with commas between them; ReadClasses reads it back.
func (l ClassList) String() string { return strings.Join(l, ",") }

// Digest is the SHA-256 of the ids, one a line: that of the sorted file.
func (l ClassList) Digest() string { return config.ClassesDigest(l.String()) }

// Select is the set cut down to the classes of a list. A class's number is its
// place among the sorted ids; the samples keep their order.
func (s *Set) Select(list ClassList) (*Set, error) {
	number := make(map[string]int32, len(list))
	for i, id := range list {
		number[id] = int32(i)
	}
	to := make([]int32, s.Train.Classes()) // of the class's number before; −1: left out
	for class := range to {
		to[class] = -1
		if n, wanted := number[className(s.Train, class)]; wanted {
			to[class] = n
			delete(number, className(s.Train, class))
		}
	}
	if len(number) > 0 {
		var unknown []string
		for _, id := range list {
			if _, is := number[id]; is {
				unknown = append(unknown, id)
			}
		}
		if len(to) == 0 {
			return nil, errors.New("the data set has no classes to choose from")
		}
		return nil, fmt.Errorf("%d of %d ids are no class of the data set, such as %s; it has %s, such as %s",
			len(unknown), len(list), strings.Join(unknown[:min(3, len(unknown))], ", "), plural(len(to), "class", "classes"), className(s.Train, 0))
	}
	cut := *s
	names := []string(list)
	train := choose(s.Train, to, names)
	if train.Len() == 0 {
		return nil, errors.New("the classes have no training images")
	}
	cut.Train, cut.Test = train.dataset(), nil
	tests := "no test images"
	if s.Test != nil {
		if test := choose(s.Test, to, names); test.Len() > 0 {
			cut.Test, tests = test.dataset(), plural(test.Len(), "test image", "test images")
		}
	}
	digest := sha256.Sum256([]byte(s.Info.Digest + "\n" + list.Digest()))
	cut.Info.Train, cut.Info.Classes = train.Len(), len(list)
	cut.Info.Digest, cut.Info.ClassList = hex.EncodeToString(digest[:16]), list.Digest()
	what := ""
	if known, err := classList(strings.Fields(imageNet100)); err == nil && slices.Equal(known, list) {
		what = ImageNet100 + ", "
	}
	cut.Announce += fmt.Sprintf("\n%d of its %s (%sSHA-256 of the sorted ids %s): %s, %s", len(list), plural(len(to), "class", "classes"),
		what, list.Digest(), plural(train.Len(), "training image", "training images"), tests)
	return &cut, nil
}

// className is a class's name, its number where it has none.
func className(d Dataset, class int) string {
	if named, is := d.(interface{ ClassName(int) string }); is {
		return named.ClassName(class)
	}
	return strconv.Itoa(class)
}

// chosen is some samples of a data set, with new numbers for their classes.
type chosen struct {
	Dataset
	at     []int32
	labels []int32
	names  []string
}

func choose(d Dataset, to []int32, names []string) chosen {
	c := chosen{Dataset: d, names: names}
	for i := range d.Len() {
		if label := d.Label(i); label >= 0 && to[label] >= 0 {
			c.at, c.labels = append(c.at, int32(i)), append(c.labels, to[label])
		}
	}
	return c
}

// dataset is c, Encoded where the samples are.
func (c chosen) dataset() Dataset {
	if e, is := c.Dataset.(Encoded); is {
		return chosenFiles{c, e}
	}
	return c
}

// source is where sample i comes from.
func (c chosen) source(i int) (Dataset, int) { return c.Dataset, int(c.at[i]) }

func (c chosen) Len() int                   { return len(c.at) }
func (c chosen) Classes() int               { return len(c.names) }
func (c chosen) Label(i int) int32          { return c.labels[i] }
func (c chosen) Path(i int) string          { return c.Dataset.Path(int(c.at[i])) }
func (c chosen) ClassName(class int) string { return c.names[class] }

func (c chosen) Decode(i int, d *Decoder) (*augment.Image, error) {
	return c.Dataset.Decode(int(c.at[i]), d)
}

// chosenFiles is chosen of image files.
type chosenFiles struct {
	chosen
	files Encoded
}

func (c chosenFiles) Name(i int) string { return c.files.Name(int(c.at[i])) }

func (c chosenFiles) Content(i int, d *Decoder) ([]byte, error) {
	return c.files.Content(int(c.at[i]), d)
}
