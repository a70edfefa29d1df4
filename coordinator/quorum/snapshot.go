package quorum

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"mochi/coordinator/protocol"
)

// snapshotMagic begins a snapshot; the number is the version.
const snapshotMagic = "mochi quorum 1\n"

// snapshotHeader is everything of a state but its commits and those staged, which
// follow, each with its length before it.
type snapshotHeader struct {
	Index      uint64            `json:"index"` // of the last entry in it
	Under      uint64            `json:"under"` // its term
	Settings   settings          `json:"settings"`
	Base       int64             `json:"base"`
	Commits    int               `json:"commits"`
	Staged     int               `json:"staged,omitempty"`
	Lines      map[string]int64  `json:"lines"`
	Checkpoint *Checkpoint       `json:"checkpoint,omitempty"`
	Over       *Outcome          `json:"over,omitempty"`
	OverAt     uint64            `json:"over_at,omitempty"`
	Admitted   map[string]string `json:"admitted,omitempty"`
}

// copy is the state as it is now; what is applied later does not change it.
func (s *state) copy() *state {
	c := *s
	c.commits = s.commits[:len(s.commits):len(s.commits)]
	c.staged = s.staged[:len(s.staged):len(s.staged)]
	c.lines, c.admitted = maps.Clone(s.lines), maps.Clone(s.admitted)
	return &c
}

// write writes a state for read.
func (s *state) write(to io.Writer) error {
	header, err := json.Marshal(snapshotHeader{
		s.index, s.under, s.settings, s.base, len(s.commits), len(s.staged), s.lines, s.checkpoint, s.over, s.overAt, s.admitted,
	})
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(to, 1<<20)
	for _, part := range [][]byte{[]byte(snapshotMagic), binary.AppendUvarint(nil, uint64(len(header))), header} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	for _, c := range slices.Concat(s.commits, s.staged) {
		if _, err := w.Write(appendBytes(nil, c)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// readState is the inverse of write. It verifies that the commits are one history.
func readState(from io.Reader) (*state, error) {
	r := bufio.NewReaderSize(from, 1<<20)
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, err
	}
	if string(magic) != snapshotMagic {
		return nil, fmt.Errorf("it begins with %q: it is no snapshot, or one of a later build of mochi", magic)
	}
	text, err := readBytes(r)
	if err != nil {
		return nil, err
	}
	var h snapshotHeader
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	s := newState()
	s.index, s.under, s.settings, s.base, s.checkpoint, s.over, s.overAt = h.Index, h.Under, h.Settings, h.Base, h.Checkpoint, h.Over, h.OverAt
	maps.Copy(s.lines, h.Lines)
	maps.Copy(s.admitted, h.Admitted)
	var before *protocol.Commit
	for i := range h.Commits {
		body, err := readBytes(r)
		if err != nil {
			return nil, fmt.Errorf("commit %d of %d: %w", i+1, h.Commits, err)
		}
		c, err := decodeCommit(body)
		if err == nil && before != nil {
			err = c.Follows(*before)
		} else if err == nil && c.Step != h.Base+1 {
			err = fmt.Errorf("the first commit is of step %d, not %d", c.Step, h.Base+1)
		}
		if err != nil {
			return nil, fmt.Errorf("commit %d of %d: %w", i+1, h.Commits, err)
		}
		s.commits, before = append(s.commits, body), &c
	}
	s.last = before
	for i := range h.Staged {
		body, err := readBytes(r)
		if err != nil {
			return nil, fmt.Errorf("staged commit %d of %d: %w", i+1, h.Staged, err)
		}
		s.staged = append(s.staged, body)
	}
	return s, nil
}

// readBytes reads a length and so many bytes. It takes no memory for bytes that are
// not there.
func readBytes(r *bufio.Reader) ([]byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, noEOF(err)
	}
	if size > maxEntry {
		return nil, fmt.Errorf("a part of %d bytes: at most %d are possible", size, maxEntry)
	}
	var b []byte
	for uint64(len(b)) < size {
		part := make([]byte, min(size-uint64(len(b)), 1<<20))
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, noEOF(err)
		}
		b = append(b, part...)
	}
	return b, nil
}

// noEOF makes the end of a file in the middle an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
