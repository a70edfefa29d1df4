package shards

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Sample is one image of a shard.
type Sample struct {
	Name   string // of the image's member, cleaned
	Key    string
	Offset int64 // of its bytes in the shard
	Size   int64
	Class  string // what .cls or .json say, "" when nothing
}

// Shard is what a scan finds.
type Shard struct {
	Path    string
	Size    int64             // of the file
	Samples []Sample          // by key
	Names   map[string]string // class → its name, where .json has both
	Other   []string          // members that belong to no image
	Twice   []string          // members whose name comes again later, which counts
	Fault   error             // why the rest could not be read: cut short, or damaged
}

// ErrCut says that a shard ends too early.
var ErrCut = errors.New("the shard is cut short")

// What a shard may hold: a shard of WebDataset has some thousand members, and what
// is kept of each takes memory.
const (
	maxMembers = 4_000_000
	maxName    = 4096 // bytes, as long as a path can be
)

// maxText is how much of a .cls or .json member is read.
const maxText = 1 << 16

// ScanFile scans the shard at path. An error is about the file as a whole;
// a damaged shard is one with Fault.
func ScanFile(path string) (*Shard, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", path)
	}
	s := Scan(f, info.Size())
	s.Path = path
	return s, nil
}

// Scan reads the headers of a tar file of size bytes.
func Scan(r io.ReadSeeker, size int64) *Shard {
	s := &Shard{Size: size, Names: make(map[string]string)}
	g := grouping{shard: s, at: make(map[string]int)}
	if size == 0 {
		s.Fault = errors.New("the shard is empty")
		return s
	}
	members := 0
	for in := tar.NewReader(r); ; members++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			if !ended(r, size) {
				s.Fault = ErrCut
			}
			break
		}
		if err != nil {
			s.Fault = damage(r, err, len(g.keys) == 0)
			break
		}
		if s.Fault = tooMuch(h, members, size); s.Fault != nil {
			break
		}
		if h.Typeflag != tar.TypeReg || sparse(h) {
			continue // folders, links; a sparse member has no place of its own
		}
		offset, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			s.Fault = err
			break
		}
		// The reader buffers nothing: after a header it stands at the content.
		g.add(strings.TrimLeft(path.Clean("/"+h.Name), "/"), offset, h.Size, in)
	}
	g.finish()
	return s
}

// tooMuch says why a member, the one after so many, cannot be taken.
func tooMuch(h *tar.Header, before int, size int64) error {
	switch {
	case before >= maxMembers:
		return fmt.Errorf("the shard has more than %d members, the limit: cut it into several", maxMembers)
	case len(h.Name) > maxName:
		return fmt.Errorf("member %d has a name of %d bytes: the limit is %d", before+1, len(h.Name), maxName)
	case h.Size > size:
		return fmt.Errorf("%w: member %.100q has %d bytes, the shard %d", ErrCut, h.Name, h.Size, size)
	}
	return nil
}

// ended says whether a tar file that was read to its end has the end mark of
// zeros; one that was cut between two members has not.
func ended(r io.ReadSeeker, size int64) bool {
	if at, err := r.Seek(0, io.SeekCurrent); err != nil || at < size {
		return err == nil // the mark, and something after it
	}
	tail := make([]byte, 512)
	if _, err := r.Seek(max(0, size-int64(len(tail))), io.SeekStart); err != nil {
		return false
	}
	n, _ := io.ReadFull(r, tail)
	return n == len(tail) && !slices.ContainsFunc(tail, func(b byte) bool { return b != 0 })
}

// damage says what a failed header means.
func damage(r io.ReadSeeker, err error, first bool) error {
	if first {
		head := make([]byte, 2)
		if _, err := r.Seek(0, io.SeekStart); err == nil {
			if _, err = io.ReadFull(r, head); err == nil && bytes.Equal(head, []byte{0x1f, 0x8b}) {
				return errors.New("it is compressed, which allows no access at random: gunzip it first")
			}
		}
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCut
	case !errors.Is(err, tar.ErrHeader):
		return err
	case first:
		return errors.New("it is not a tar file")
	}
	return errors.New("the shard is damaged: what follows is no header of a tar member")
}

func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// grouping joins members by key. Members of a key need not be neighbours.
type grouping struct {
	shard *Shard
	keys  []group
	at    map[string]int // key → index of keys
}

// group is what has been seen of a key.
type group struct {
	key     string
	image   Sample   // Name "" while there is none
	others  []Sample // images by their last extension only: photo.1.jpg
	class   string
	fromCLS bool
	rest    []string // other members
}

func imageExtension(ext string) bool {
	switch strings.ToLower(ext) {
	case "jpg", "jpeg", "png":
		return true
	}
	return false
}

// cutName cuts a member's name into key and extension, at the first dot of its
// last part that is not the part's first letter.
func cutName(name string) (key, ext string) {
	dir, base := path.Split(name)
	if base == "" || base[0] == '.' {
		return "", "" // hidden
	}
	stem, ext, _ := strings.Cut(base, ".")
	return dir + stem, ext
}

func (g *grouping) add(name string, offset, size int64, content io.Reader) {
	key, ext := cutName(name)
	if key == "" || strings.HasPrefix(path.Base(key), "__") { // meta data
		return
	}
	i, known := g.at[key]
	if !known {
		i = len(g.keys)
		g.at[key] = i
		g.keys = append(g.keys, group{key: key})
	}
	k := &g.keys[i]
	member := Sample{Name: name, Key: key, Offset: offset, Size: size}
	switch lower := strings.ToLower(ext); {
	case imageExtension(lower):
		if k.image.Name == name {
			g.shard.Twice = append(g.shard.Twice, name)
		}
		if k.image.Name != "" && k.image.Name != name { // x.jpg and x.png: two images
			k.others = append(k.others, k.image)
		}
		k.image = member
	case imageExtension(lower[strings.LastIndex(lower, ".")+1:]):
		member.Key = strings.TrimSuffix(name, path.Ext(name))
		k.others = append(k.others, member)
	case lower == "cls":
		k.class, k.fromCLS = strings.TrimSpace(string(text(content))), true
	case lower == "json":
		if name, known := g.shard.Names[k.class]; known && k.fromCLS && name != "" {
			return
		}
		class, name := classOf(text(content))
		if k.fromCLS {
			class = k.class
		}
		k.class = class
		if class != "" && name != "" {
			g.shard.Names[class] = name
		}
	default:
		k.rest = append(k.rest, name)
	}
}

func text(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, maxText)) // what cannot be read says nothing
	return b
}

// classOf reads a class and its name from a sample's .json: the number from
// cls, label or class, the name from class, label or class_name.
func classOf(content []byte) (class, name string) {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return "", ""
	}
	for _, field := range []string{"cls", "label", "class", "class_name"} {
		switch v := fields[field].(type) {
		case json.Number:
			if class == "" {
				class = v.String()
			}
		case string:
			if name == "" {
				name = v
			}
		}
	}
	if class == "" {
		class = name
	}
	return class, name
}

// finish turns the groups into samples.
func (g *grouping) finish() {
	s := g.shard
	for _, k := range g.keys {
		if k.image.Name == "" && len(k.others) == 0 {
			s.Other = append(s.Other, k.rest...)
			if len(k.rest) == 0 {
				s.Other = append(s.Other, k.key)
			}
			continue
		}
		if k.image.Name != "" {
			k.others = append(k.others, k.image)
		}
		for _, image := range k.others {
			image.Class = k.class
			s.Samples = append(s.Samples, image)
		}
	}
	slices.SortFunc(s.Samples, func(a, b Sample) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// Number is a class as a number; false when it is a word.
func Number(class string) (int32, bool) {
	n, err := strconv.ParseUint(class, 10, 20) // a million classes
	return int32(n), err == nil
}
