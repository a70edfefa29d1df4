package data

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mochi/replica/augment"
)

// idxSplit is one pair of IDX files in memory: grey images of one size.
type idxSplit struct {
	path      string // of the images file
	labelPath string
	w, h      int
	pix       []uint8 // [n, h, w]
	labels    []uint8 // [n], as in the file
	classes   []uint8 // the labels that training images have, ascending
}

// openIDX opens the IDX pairs among the files of dir: a training pair
// (…train…images…, …train…labels…) and optionally one for tests (t10k or
// test), each plain or gzipped. A folder without a file of training images is
// none of its own.
func openIDX(dir string, names []string, o Options) (*Set, error) {
	path, err := pick(dir, names, "images", "train")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, errOther
	}
	train, err := openIDXSplit(dir, names, "train")
	if err != nil {
		return nil, err
	}
	train.classes = classesOf(train.labels)
	set := &Set{Train: train, Kind: "idx"}
	if path, err = pick(dir, names, "images", "t10k", "test"); err != nil {
		return nil, err
	}
	if path != "" {
		test, err := openIDXSplit(dir, names, "t10k", "test")
		if err != nil {
			return nil, err
		}
		test.classes = train.classes
		set.Test = test
	}
	digest := sha256.New()
	fmt.Fprintf(digest, "idx %d %d %d\n", train.Len(), train.h, train.w)
	digest.Write(train.pix)
	digest.Write(train.labels)
	used := train.with(set.Test)
	set.Account = Account{Unit: "files"}
	set.Account.used(0, 0, len(used))
	set.unknown = set.unknownLabels(func(i int) int { return int(set.Test.(*idxSplit).labels[i]) })
	var notes []string
	if first := int(train.classes[0]); first > 0 || int(train.classes[len(train.classes)-1]) != len(train.classes)-1 {
		notes = append(notes, fmt.Sprintf("labels %d to %d, of which %s there: classes are named by their labels", first, train.classes[len(train.classes)-1], plural(len(train.classes), "is", "are")))
	}
	if err := leaveFiles(&set.Account, o, dir, used); err != nil {
		return nil, err
	}
	set.describe("IDX files in "+dir, fmt.Sprintf(" of %d×%d pixels", train.w, train.h), digest, append(notes, set.Account.notes()...)...)
	return set, nil
}

func openIDXSplit(dir string, names []string, split ...string) (*idxSplit, error) {
	images, err := pick(dir, names, "images", split...)
	if err != nil {
		return nil, err
	}
	labels, err := pick(dir, names, "labels", split...)
	if err != nil {
		return nil, err
	}
	if labels == "" {
		return nil, fmt.Errorf("%s: no labels file beside it", images)
	}
	dims, pix, err := readIDXFile(images, 3)
	if err != nil {
		return nil, err
	}
	_, classes, err := readIDXFile(labels, 1)
	if err != nil {
		return nil, err
	}
	if len(classes) != dims[0] {
		return nil, fmt.Errorf("%s: %d images, but %d labels in %s", images, dims[0], len(classes), labels)
	}
	return &idxSplit{path: images, labelPath: labels, h: dims[1], w: dims[2], pix: pix, labels: classes}, nil
}

// pick finds the one file whose name has what and one of the words of split;
// of a file and the same file gzipped, the plain one. "" when there is none.
func pick(dir string, names []string, what string, split ...string) (string, error) {
	found := ""
	for _, name := range names {
		lower := strings.ToLower(name)
		if !strings.Contains(lower, what) || !strings.Contains(lower, "idx") || !containsAny(lower, split) {
			continue
		}
		if found != "" && name != found+".gz" {
			return "", fmt.Errorf("%s: both %s and %s look like its %s %s; keep one", dir, found, name, split[0], what)
		}
		if found == "" {
			found = name
		}
	}
	if found == "" {
		return "", nil
	}
	return filepath.Join(dir, found), nil
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// A gzip file may unpack to a thousand times its size. Images do not: what is above
// unpackedAnyway bytes may be maxRatio times as much. (Labels that are sorted are
// packed that well, but there are fewer of them.)
const (
	maxRatio       = 100
	unpackedAnyway = 64 << 20
)

// readIDXFile reads an IDX file of unsigned bytes, gzipped or not.
func readIDXFile(path string, dimensions int) (dims []int, values []uint8, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	in := bufio.NewReaderSize(f, 1<<16)
	var r io.Reader = in
	most := int64(math.MaxInt64)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		if r, err = gzip.NewReader(in); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, cut(err))
		}
		most = max(unpackedAnyway, info.Size()*maxRatio)
	}
	if dims, values, err = readIDX(r, dimensions, most); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return dims, values, nil
}

// readIDX reads an IDX stream of unsigned bytes with the given number of
// dimensions: magic 0, 0, 8, dimensions; their big-endian lengths; values, of which
// there may be most. It never allocates more than the stream really
// holds calls for.
func readIDX(r io.Reader, dimensions int, most int64) (dims []int, values []uint8, err error) {
	header := make([]byte, 4+4*dimensions)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, nil, fmt.Errorf("read the IDX header: %w", cut(err))
	}
	if want := [4]byte{0, 0, 8, byte(dimensions)}; [4]byte(header) != want {
		return nil, nil, fmt.Errorf("not an IDX file of %d-dimensional bytes: it starts with % x, want % x", dimensions, header[:4], want)
	}
	total := int64(1)
	for i := range dimensions {
		n := int64(binary.BigEndian.Uint32(header[4+4*i:]))
		if n == 0 || n > 1<<31-1 || total > (1<<40)/n {
			return nil, nil, fmt.Errorf("impossible IDX header: dimension %d is %d", i, n)
		}
		total *= n
		dims = append(dims, int(n))
	}
	if total > most {
		return nil, nil, fmt.Errorf("its header says %d values, and a gzip file of its size may hold %d: it is cut short, or packed more than %d-fold, the limit (gunzip it, if it is right)", total, most, maxRatio)
	}
	values, err = io.ReadAll(io.LimitReader(r, total+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read IDX values: %w", cut(err))
	case int64(len(values)) < total:
		return nil, nil, fmt.Errorf("cut short: holds %d values, its header says %d", len(values), total)
	case int64(len(values)) > total:
		return nil, nil, fmt.Errorf("longer than the %d values its header says", total)
	}
	return dims, values, nil
}

// classesOf are the labels that there are, ascending.
func classesOf(labels []uint8) (classes []uint8) {
	var there [256]bool
	for _, l := range labels {
		there[l] = true
	}
	for l, is := range there {
		if is {
			classes = append(classes, uint8(l))
		}
	}
	return classes
}

// with is the files of a training split and its test split.
func (s *idxSplit) with(test Dataset) []string {
	files := []string{s.path, s.labelPath}
	if t, is := test.(*idxSplit); is {
		files = append(files, t.path, t.labelPath)
	}
	return files
}

func (s *idxSplit) Len() int     { return len(s.labels) }
func (s *idxSplit) Classes() int { return len(s.classes) }

// ClassName is the label of a class in the file.
func (s *idxSplit) ClassName(class int) string { return strconv.Itoa(int(s.classes[class])) }

func (s *idxSplit) Path(i int) string { return fmt.Sprintf("%s image %d", s.path, i) }

// Label is −1 for a test image of a class that no training image has.
func (s *idxSplit) Label(i int) int32 {
	if at, found := slices.BinarySearch(s.classes, s.labels[i]); found {
		return int32(at)
	}
	return -1
}

// strange implements stranger.
func (s *idxSplit) strange(i int) string { return strconv.Itoa(int(s.labels[i])) }

// Decode replicates grey to RGB.
func (s *idxSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	img := d.Image(s.w, s.h)
	grey := s.pix[i*s.w*s.h : (i+1)*s.w*s.h]
	for j, v := range grey {
		px := img.Pix[j*3 : j*3+3 : j*3+3]
		px[0], px[1], px[2] = v, v, v
	}
	return img, nil
}
