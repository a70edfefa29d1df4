package shards

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"mochi/replica/data/naming"
)

// ZipSuffix is how the names of zip archives end, in any case.
const ZipSuffix = ".zip"

// IsZip says whether a path names a zip archive.
func IsZip(path string) bool { return strings.HasSuffix(strings.ToLower(path), ZipSuffix) }

// Packed says how a member of a zip archive is stored.
type Packed struct {
	Size int64  // bytes in the archive, deflated; 0: as they are
	CRC  uint32 // of the content
	Zip  bool   // it is one: CRC counts
}

// ScanZip reads the directory of a zip archive of size bytes. Its members are samples
// as those of a tar file are.
func ScanZip(r io.ReaderAt, size int64) *Shard {
	s := &Shard{Size: size, Names: make(map[string]string)}
	in := scan{shard: s}
	z, err := zip.NewReader(r, size)
	switch {
	case errors.Is(err, zip.ErrInsecurePath): // names are only compared
	case err != nil:
		s.Fault = fmt.Errorf("it is no zip archive, or is cut short: %w", err)
		return s
	case len(z.File) > maxMembers:
		s.Fault = fmt.Errorf("the archive has more than %d members, the limit: cut it into several", maxMembers)
		return s
	}
	for _, f := range z.File {
		in.addZip(f)
	}
	in.group()
	return s
}

// addZip takes a member.
func (in *scan) addZip(f *zip.File) {
	if strings.HasSuffix(f.Name, "/") || f.Mode().IsDir() {
		return
	}
	name := clean(strings.ReplaceAll(f.Name, `\`, "/")) // as some programs of Windows write
	in.shard.Members++
	leave := func(why naming.Reason) { in.shard.Left = append(in.shard.Left, Left{name, why}) }
	const encrypted = 1
	offset, err := f.DataOffset()
	switch why := skipped(name); {
	case why != "":
		leave(why)
		return
	case len(f.Name) > maxName, err != nil, f.Flags&encrypted != 0, f.Method != zip.Store && f.Method != zip.Deflate, f.UncompressedSize64 > 1<<40:
		leave(naming.Locked)
		return
	case f.Mode()&fs.ModeSymlink != 0:
		leave(naming.DeadLink)
		return
	}
	m := member{name: name, offset: offset, size: int64(f.UncompressedSize64), packed: Packed{CRC: f.CRC32, Zip: true}}
	if f.Method == zip.Deflate {
		m.packed.Size = int64(f.CompressedSize64)
	}
	if isLabel(name) {
		m.label = &label{odd: true}
		if content, err := f.Open(); err == nil {
			m.label = readLabel(name, content)
			content.Close()
		}
	}
	in.members = append(in.members, m)
}

// Unpack fills content from what is stored of a member of a zip archive.
func (p Packed) Unpack(content, stored []byte) error {
	if p.Size > 0 {
		in := flate.NewReader(bytes.NewReader(stored))
		if _, err := io.ReadFull(in, content); err != nil {
			return fmt.Errorf("its packed bytes are damaged: %w", err)
		}
	} else {
		copy(content, stored)
	}
	if crc32.ChecksumIEEE(content) != p.CRC {
		return errors.New("its checksum in the archive is wrong")
	}
	return nil
}
