package shards

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Item is a sample to pack.
type Item struct {
	Content   []byte // the encoded image
	Extension string // jpg or png
	Class     int32  // −1 for none
	ClassName string // "" for none
	File      string // where it came from, for people
}

// Packer writes samples to shards one after another, under temporary names
// until Finish, so that a set of shards is whole or not there. The bytes
// depend on the items and the shard size only.
type Packer struct {
	before, after string // of the number in the shards' names
	first, width  int
	size          int64 // start another shard above so many bytes

	done    []string // temporary names of written shards
	file    *os.File
	buffer  *bufio.Writer
	tar     *tar.Writer
	written int64 // bytes of this shard
	items   int   // in all
}

// NewPacker writes to the shards that pattern names, PREFIX-{000..}.tar, of
// about size bytes each. It fails when such shards are there already.
func NewPacker(pattern string, size int64) (*Packer, error) {
	before, rest, _ := strings.Cut(pattern, "{")
	number, after, _ := strings.Cut(rest, "}")
	first, open := strings.CutSuffix(number, "..")
	from, err := strconv.Atoi(first)
	if !open || err != nil || from < 0 || after != Suffix {
		return nil, fmt.Errorf("%q is not of the form PREFIX-{000..}.tar", pattern)
	}
	if size < 1 {
		return nil, fmt.Errorf("a shard of %d bytes", size)
	}
	dir := filepath.Dir(before + "x")
	if !isFolder(dir) {
		return nil, fmt.Errorf("%s: no such folder to write shards to", dir)
	}
	old, err := filepath.Glob(quoteGlob(before) + "[0-9]*" + Suffix)
	if err == nil && len(old) > 0 {
		return nil, fmt.Errorf("%s is there already: remove the old shards or choose another name", old[0])
	}
	return &Packer{before: before, after: after, first: from, width: len(first), size: size}, nil
}

// Add appends a sample.
func (p *Packer) Add(item Item) error {
	if p.file != nil && p.written >= p.size {
		if err := p.endShard(); err != nil {
			return err
		}
	}
	if p.file == nil {
		if err := p.startShard(); err != nil {
			return err
		}
	}
	key := fmt.Sprintf("%09d", p.items)
	p.items++
	about := struct {
		Class string `json:"class,omitempty"`
		File  string `json:"file"`
	}{item.ClassName, item.File}
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	if err := p.member(key+"."+item.Extension, item.Content); err != nil {
		return err
	}
	if item.Class >= 0 {
		if err := p.member(key+".cls", strconv.AppendInt(nil, int64(item.Class), 10)); err != nil {
			return err
		}
	}
	return p.member(key+".json", text)
}

// member writes a file with a header that says nothing of this machine.
func (p *Packer) member(name string, content []byte) error {
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR}
	if h.Size >= 1<<33 {
		h.Format = tar.FormatPAX
	}
	if err := p.tar.WriteHeader(&h); err != nil {
		return fmt.Errorf("write %s: %w", p.file.Name(), err)
	}
	if _, err := p.tar.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", p.file.Name(), err)
	}
	p.written += 512 + (h.Size+511)/512*512
	return nil
}

func (p *Packer) startShard() error {
	dir, base := filepath.Split(p.before)
	f, err := os.CreateTemp(dir, "."+base+"*"+Suffix+".part")
	if err != nil {
		return fmt.Errorf("make a shard: %w", err)
	}
	p.file, p.written = f, 0
	p.buffer = bufio.NewWriterSize(f, 1<<20)
	p.tar = tar.NewWriter(p.buffer)
	return nil
}

func (p *Packer) endShard() error {
	f := p.file
	err := errors.Join(p.tar.Close(), p.buffer.Flush(), f.Chmod(0o644), f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
	} else {
		p.done = append(p.done, f.Name())
	}
	p.file = nil
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// Items is how many samples were added.
func (p *Packer) Items() int { return p.items }

// Finish gives the shards their names and returns them, with more digits than
// the pattern has where there are so many.
func (p *Packer) Finish() (names []string, err error) {
	if p.file != nil {
		if err := p.endShard(); err != nil {
			return nil, err
		}
	}
	if len(p.done) == 0 {
		return nil, errors.New("no sample to pack")
	}
	width := max(p.width, len(strconv.Itoa(p.first+len(p.done)-1)))
	for i, part := range p.done {
		name := fmt.Sprintf("%s%0*d%s", p.before, width, p.first+i, p.after)
		if err := os.Rename(part, name); err != nil {
			p.done = p.done[i:]
			return names, fmt.Errorf("name a shard: %w", err)
		}
		names = append(names, name)
	}
	p.done = nil
	if dir, err := os.Open(filepath.Dir(names[0])); err == nil {
		_ = dir.Sync() // where a folder cannot be synced, the files are
		dir.Close()
	}
	return names, nil
}

// Abandon removes what has no name yet. It does nothing after Finish.
func (p *Packer) Abandon() {
	if p.file != nil {
		p.file.Close()
		os.Remove(p.file.Name())
		p.file = nil
	}
	for _, part := range p.done {
		os.Remove(part)
	}
	p.done = nil
}
