package shards

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"mochi/replica/data/naming"
)

// Sample is one image of a shard.
type Sample struct {
	Name   string // of the image's member, cleaned
	Key    string
	Offset int64 // of its bytes in the shard
	Size   int64
	Class  string // what .cls or .json say, "" when nothing
	Packed Packed // of a zip archive: how it is stored
}

// Left is a member that is left out.
type Left struct {
	Name string
	Why  naming.Reason
}

// Shard is what a scan finds.
type Shard struct {
	Path    string
	File    string            // what is read: another file, where Path was unpacked to one
	Size    int64             // of the file that is read
	Samples []Sample          // by key
	Names   map[string]string // class → its name, where .json has both
	Members int               // that are files, or links to such
	Read    int               // of them members with labels of samples
	Left    []Left            // of them those that are left out
	Odd     []string          // of Read, those whose labels are not understood
	Fault   error             `json:"-"` // why the rest could not be read: cut short, or damaged

	// From is where it is read from when it is no file at Path; nil: it is one.
	From io.ReaderAt `json:"-"`
}

// ErrCut says that a shard ends too early.
var ErrCut = errors.New("the shard is cut short")

// What a shard may hold: a shard of WebDataset has some thousand members, and what
// is kept of each takes memory.
const (
	maxMembers = 4_000_000
	maxName    = 4096 // bytes, as long as a path can be
)

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
	var s *Shard
	if IsZip(path) {
		s = ScanZip(f, info.Size())
	} else {
		s = Scan(f, info.Size())
	}
	s.Path, s.File = path, path
	return s, nil
}

// member is a file of a tar file.
type member struct {
	name         string // cleaned
	offset, size int64  // of its content
	link         string // the member that it is a link to, cleaned
	label        *label // of .cls and .json
	packed       Packed
}

// scan is a pass over the headers.
type scan struct {
	r       io.ReadSeeker
	shard   *Shard
	members []member
	count   int // headers seen
}

// Scan reads the headers of a tar file of size bytes; of several one behind the
// other, those of all.
func Scan(r io.ReadSeeker, size int64) *Shard {
	s := &Shard{Size: size, Names: make(map[string]string)}
	if size == 0 {
		s.Fault = errors.New("the shard is empty")
		return s
	}
	in := scan{r: r, shard: s}
	for start, more := int64(0), true; more; {
		next, err := in.archive(start)
		if s.Fault = err; err != nil {
			break
		}
		if start = next; next == 0 {
			start, more, s.Fault = in.behind()
		}
	}
	in.group()
	return s
}

// archive reads the headers of the archive that begins at start. next is where it
// goes on behind a mark that is half an end mark, 0 where it has ended.
func (in *scan) archive(start int64) (next int64, err error) {
	if _, err := in.r.Seek(start, io.SeekStart); err != nil {
		return 0, err
	}
	size := in.shard.Size
	for t, first := tar.NewReader(in.r), true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if !ended(in.r, size) {
				return 0, ErrCut
			}
			return 0, nil
		}
		if at, ok := in.markHalf(err); ok && at > start { // one block of zeros, and on it goes
			return at, nil
		}
		if err != nil {
			if first && start > 0 {
				return 0, fmt.Errorf("from byte %d on, behind the end mark, there are %d bytes that are no tar archive", start, size-start)
			}
			return 0, damage(in.r, err, in.count == 0)
		}
		if err := tooMuch(h, in.count, size); err != nil {
			return 0, err
		}
		in.count++
		// The reader buffers nothing: after a header it stands at the content.
		offset, err := in.r.Seek(0, io.SeekCurrent)
		if err != nil {
			return 0, err
		}
		in.add(h, offset, t)
	}
}

// markHalf says whether a header is missing because the end mark is one block of
// zeros, not two, and where the header behind it is.
func (in *scan) markHalf(err error) (at int64, ok bool) {
	if !errors.Is(err, tar.ErrHeader) {
		return 0, false
	}
	end, err := in.r.Seek(0, io.SeekCurrent)
	if err != nil || end < 3*block {
		return 0, false
	}
	b := make([]byte, block)
	if _, err := in.r.Seek(end-2*block, io.SeekStart); err != nil {
		return 0, false
	}
	_, err = io.ReadFull(in.r, b)
	ok = err == nil && zeros(b)
	if _, err := in.r.Seek(end, io.SeekStart); err != nil {
		return 0, false
	}
	return end - block, ok
}

// block is the unit of a tar file.
const block = 512

func zeros(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// behind looks for another archive behind the end mark that was read: what is not
// zero begins it.
func (in *scan) behind() (start int64, more bool, err error) {
	at, err := in.r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, false, err
	}
	buffer := make([]byte, 1<<16)
	for at < in.shard.Size {
		n, err := io.ReadFull(in.r, buffer)
		if i := slices.IndexFunc(buffer[:n], func(c byte) bool { return c != 0 }); i >= 0 {
			return at + int64(i/block*block), true, nil
		}
		if at += int64(n); err != nil {
			break
		}
	}
	return 0, false, nil
}

// add takes a member.
func (in *scan) add(h *tar.Header, offset int64, content io.Reader) {
	m := member{name: clean(h.Name), offset: offset, size: h.Size}
	leave := func(why naming.Reason) {
		in.shard.Members++
		in.shard.Left = append(in.shard.Left, Left{m.name, why})
	}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader, 'V', 'M', 'D', 'N':
		return // no file
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		leave(naming.Special)
		return
	case tar.TypeLink:
		m.link = clean(h.Linkname)
	case tar.TypeSymlink:
		m.link = clean(path.Join(path.Dir("/"+m.name), h.Linkname))
		if path.IsAbs(h.Linkname) {
			m.link = clean(h.Linkname)
		}
	}
	if why := skipped(m.name); why != "" {
		leave(why)
		return
	}
	if h.Typeflag == tar.TypeGNUSparse || sparse(h) {
		leave(naming.Sparse) // its content is in pieces
		return
	}
	in.shard.Members++
	if m.link == "" && isLabel(m.name) {
		m.label = readLabel(m.name, content)
	}
	in.members = append(in.members, m)
}

// clean is a member's name without what leads nowhere.
func clean(name string) string { return strings.TrimLeft(path.Clean("/"+name), "/") }

// skipped is naming.Skipped of all folders of a name, and WebDataset's own: __meta__.
func skipped(name string) naming.Reason {
	for part := range strings.SplitSeq(name, "/") {
		if why := naming.Skipped(part); why != "" {
			return why
		}
	}
	if name == "" {
		return naming.Special
	}
	if strings.HasPrefix(path.Base(name), "__") {
		return naming.Text
	}
	return ""
}

// tooMuch says why a member, the one after so many, cannot be taken.
func tooMuch(h *tar.Header, before int, size int64) error {
	switch {
	case before >= maxMembers:
		return fmt.Errorf("the shard has more than %d members, the limit: cut it into several", maxMembers)
	case len(h.Name) > maxName:
		return fmt.Errorf("member %d has a name of %d bytes: the limit is %d", before+1, len(h.Name), maxName)
	case h.Size > size && !sparse(h) && h.Typeflag != tar.TypeGNUSparse:
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
	tail := make([]byte, block)
	if _, err := r.Seek(max(0, size-int64(len(tail))), io.SeekStart); err != nil {
		return false
	}
	n, _ := io.ReadFull(r, tail)
	return n == len(tail) && zeros(tail)
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
