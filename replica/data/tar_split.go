package data

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"golang.org/x/text/unicode/norm"

	"mochi/replica/augment"
	"mochi/replica/data/remote"
	"mochi/replica/data/shards"
)

// tarSplit is the index of the images in tar shards: by shard, in the order
// of their names, and in a shard by key.
type tarSplit struct {
	files   *shards.Files
	samples []tarSample
	names   []string       // of the classes, as they are told apart
	shown   []string       // of the classes, for people; "" for the same
	unknown map[int]string // the classes of samples that no training image has
	bounds  *bounds
}

type tarSample struct {
	shard, class   int32 // class −1 where unknown
	offset, length int64 // of the encoded image in the shard
	name           string
	packed         shards.Packed
}

// newTarSplit is the split of the samples listed. classes are the classes, in their
// order.
func newTarSplit(list []indexed, files *shards.Files, classes []string, scanned []*shards.Shard, o Options) *tarSplit {
	s := &tarSplit{files: files, bounds: o.bounds, names: classes, shown: shownNames(scanned, classes)}
	at := make(map[string]int32, len(classes))
	for i, class := range classes {
		at[class] = int32(i)
	}
	for _, e := range list {
		class, known := at[e.class]
		if !known || e.class == "" {
			class = -1
		}
		s.samples = append(s.samples, tarSample{shard: e.shard, class: class, offset: e.Offset, length: e.Size, name: e.Name, packed: e.Packed})
	}
	return s
}

// unknownClasses notes which classes of a test split the training split lacks.
func (s *tarSplit) unknownClasses(list []indexed, scanned []*shards.Shard) (notes []string) {
	said := make(map[string]bool)
	s.unknown = make(map[int]string)
	names := s.named()
	for i, e := range list {
		if s.samples[i].class < 0 && e.class != "" {
			s.unknown[i] = e.class
			if names {
				s.unknown[i] = cmp.Or(norm.NFC.String(scanned[e.shard].Names[e.class]), e.class)
			}
		}
		if s.samples[i].class < 0 && e.class != "" && len(s.names) > 0 && !said[e.class] {
			said[e.class] = true
			notes = append(notes, fmt.Sprintf("class %s of the test split has no training images: its images count as unknown", e.class))
		}
	}
	return notes
}

// digest is of the index: names, lengths, classes. Neither the place of the
// shards nor how the samples are dealt to them matters, only their order. Numbers
// of classes that do not count from 0 on are part of it.
func (s *tarSplit) digest() hash.Hash {
	h := sha256.New()
	io.WriteString(h, "tar\n")
	for i, name := range s.names {
		if _, number := shards.Number(name); number && name != strconv.Itoa(i) {
			fmt.Fprintf(h, "class %d is %s\n", i, name)
		}
	}
	for _, f := range s.samples {
		fmt.Fprintf(h, "%s\x00%d\x00%d\n", f.name, f.length, f.class)
	}
	return h
}

func (s *tarSplit) Len() int          { return len(s.samples) }
func (s *tarSplit) Classes() int      { return len(s.names) }
func (s *tarSplit) Label(i int) int32 { return s.samples[i].class }

// ClassName is the name of a class, its number where it has none.
func (s *tarSplit) ClassName(class int) string { return cmp.Or(s.shown[class], s.names[class]) }

// strange implements stranger.
func (s *tarSplit) strange(i int) string { return s.unknown[i] }

func (s *tarSplit) Path(i int) string {
	return s.files.Path(int(s.samples[i].shard)) + ":" + s.samples[i].name
}

// Name is the sample's name in its data set.
func (s *tarSplit) Name(i int) string { return s.samples[i].name }

// Content reads the encoded image of sample i.
func (s *tarSplit) Content(i int, d *Decoder) ([]byte, error) {
	e := s.samples[i]
	if e.length == 0 {
		return nil, &CorruptError{Path: s.Path(i), Err: errEmpty}
	}
	b := s.bounds.Load()
	if err := b.checkLength(e.length); err != nil {
		return nil, &CorruptError{Path: s.Path(i), Err: err}
	}
	d.file.take(b.files, e.length, b.bytes)
	content := d.Content(int(e.length))
	err := s.read(e, content, d)
	var shard *shards.FileError
	switch {
	case err == nil:
		return content, nil
	case exhausted(err), s.files.From(int(e.shard)) != nil: // of a server nothing is a sample's fault
		return nil, err
	case errors.As(err, &shard): // one report for all its samples
		return nil, &CorruptError{Path: s.files.Path(int(e.shard)), Err: shard.Err}
	}
	return nil, &CorruptError{Path: s.Path(i), Err: err}
}

// read fills content with a sample, unpacked.
func (s *tarSplit) read(e tarSample, content []byte, d *Decoder) error {
	if o, elsewhere := s.files.From(int(e.shard)).(*remote.Object); elsewhere {
		ctx := d.Wanted
		if ctx == nil {
			ctx = context.Background()
		}
		_, err := o.ReadContext(ctx, content, e.offset)
		return err
	}
	if !e.packed.Zip {
		return s.files.ReadAt(int(e.shard), content, e.offset)
	}
	n := e.length
	if e.packed.Size > 0 {
		n = e.packed.Size
	}
	if n > e.length+e.length/8+64 { // no packer makes more of it
		return fmt.Errorf("its %d bytes are %d packed: the archive is damaged", e.length, n)
	}
	stored := make([]byte, n)
	if err := s.files.ReadAt(int(e.shard), stored, e.offset); err != nil {
		return err
	}
	return e.packed.Unpack(content, stored)
}

// Decode reads and decodes sample i.
func (s *tarSplit) Decode(i int, d *Decoder) (*augment.Image, error) {
	return decodeContent(s, i, d, s.bounds.Load())
}
