package data

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"mochi/replica/augment"
)

// CIFAR's binary version: records of one label byte (CIFAR-10) or two
// (CIFAR-100: coarse, fine), then the red, green and blue plane of a 32×32
// image. See https://www.cs.toronto.edu/~kriz/cifar.html.
const (
	cifarSide  = 32
	cifarPlane = cifarSide * cifarSide
)

// cifarFormat is CIFAR-10's or CIFAR-100's.
type cifarFormat struct {
	name    string
	labels  int // bytes; the last one counts
	classes int
	train   []string
	test    string
	python  bool // the pickled version
}

func (f cifarFormat) record() int { return f.labels + 3*cifarPlane }

// cifarSplit is one split in memory, as on disk.
type cifarSplit struct {
	format  cifarFormat
	files   []string
	first   []int // index of each file's first record
	records []byte
}

// cifarFormats are CIFAR-10's and CIFAR-100's, binary and pickled.
func cifarFormats() []cifarFormat {
	binary := []cifarFormat{
		{name: "CIFAR-10", labels: 1, classes: 10, test: "test_batch.bin",
			train: []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"}},
		{name: "CIFAR-100", labels: 2, classes: 100, test: "test.bin", train: []string{"train.bin"}},
	}
	return append(binary, binary[0].pickled(), binary[1].pickled())
}

// openCIFAR opens CIFAR-10 or CIFAR-100 when its training files are among
// those of dir, or of the folder in it that they are unpacked to.
func openCIFAR(dir string, names []string, o Options) (*Set, error) {
	for _, f := range cifarFormats() {
		if set, err := f.open(dir, names, o); !errors.Is(err, errOther) {
			return set, err
		}
	}
	for _, unpacked := range []string{"cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python"} {
		sub := filepath.Join(dir, unpacked)
		names, err := files(sub)
		if err != nil {
			continue // not there
		}
		for _, f := range cifarFormats() {
			if set, err := f.open(sub, names, o); !errors.Is(err, errOther) {
				return set, err
			}
		}
	}
	return nil, errOther
}

// open opens a folder with files of this format. Some of CIFAR-10's five
// training files may be missing, which is announced.
func (f cifarFormat) open(dir string, names []string, o Options) (*Set, error) {
	var found, missing []string
	for _, name := range f.train {
		if slices.Contains(names, name) {
			found = append(found, filepath.Join(dir, name))
		} else {
			missing = append(missing, name)
		}
	}
	if len(found) == 0 || f.python && !bytes.HasPrefix(readHead(found[0]), []byte{0x80}) {
		return nil, errOther
	}
	train, err := readCIFARFiles(f, found)
	if err != nil {
		return nil, err
	}
	set := &Set{Train: train, Kind: "cifar"}
	if slices.Contains(names, f.test) {
		if set.Test, err = readCIFARFiles(f, []string{filepath.Join(dir, f.test)}); err != nil {
			return nil, err
		}
	}
	var notes []string
	if len(missing) > 0 {
		notes = append(notes, fmt.Sprintf("missing: %v", missing))
	}
	used := train.files
	if t, is := set.Test.(*cifarSplit); is {
		used = append(slices.Clone(used), t.files...)
	}
	set.Account = Account{Unit: "files"}
	set.Account.used(0, 0, len(used))
	if err := leaveFiles(&set.Account, o, dir, used); err != nil {
		return nil, err
	}
	notes = append(notes, set.Account.notes()...)
	digest := sha256.New()
	fmt.Fprintf(digest, "cifar %d\n", f.classes)
	digest.Write(train.records)
	version := "binary"
	if f.python {
		version = "pickled"
	}
	set.describe(fmt.Sprintf("%s %s files in %s", f.name, version, dir), "", digest, notes...)
	return set, nil
}

func readCIFARFiles(f cifarFormat, paths []string) (*cifarSplit, error) {
	s := &cifarSplit{format: f, files: paths}
	for _, path := range paths {
		records, err := f.read(path)
		if err != nil {
			return nil, err
		}
		if err := f.check(records); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		s.first = append(s.first, s.Len())
		if s.records == nil {
			s.records = make([]byte, 0, len(records)*len(paths))
		}
		s.records = append(s.records, records...)
	}
	return s, nil
}

// read is the records of a file.
func (f cifarFormat) read(path string) ([]byte, error) {
	if !f.python {
		return os.ReadFile(path)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	records, err := f.unpickle(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return records, nil
}

// check verifies that data is a whole number of records with labels in range.
func (f cifarFormat) check(data []byte) error {
	size := f.record()
	if len(data) == 0 || len(data)%size != 0 {
		return fmt.Errorf("%d bytes are not a whole number of %s records of %d bytes: the file is cut short or of another kind", len(data), f.name, size)
	}
	for at := 0; at < len(data); at += size {
		if label := int(data[at+f.labels-1]); label >= f.classes {
			return fmt.Errorf("record %d has label %d, %s has classes 0 to %d: not such a file", at/size, label, f.name, f.classes-1)
		}
	}
	return nil
}

func (s *cifarSplit) Len() int     { return len(s.records) / s.format.record() }
func (s *cifarSplit) Classes() int { return s.format.classes }

func (s *cifarSplit) Label(i int) int32 {
	return int32(s.records[i*s.format.record()+s.format.labels-1])
}

func (s *cifarSplit) Path(i int) string {
	file, known := slices.BinarySearch(s.first, i)
	if !known {
		file--
	}
	return fmt.Sprintf("%s record %d", s.files[file], i-s.first[file])
}

// Decode interleaves the planes.
func (s *cifarSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	size := s.format.record()
	planes := s.records[i*size+s.format.labels : (i+1)*size]
	red, green, blue := planes[:cifarPlane], planes[cifarPlane:2*cifarPlane], planes[2*cifarPlane:3*cifarPlane]
	img := d.Image(cifarSide, cifarSide)
	for j := range red {
		px := img.Pix[j*3 : j*3+3 : j*3+3]
		px[0], px[1], px[2] = red[j], green[j], blue[j]
	}
	return img, nil
}
