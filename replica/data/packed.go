package data

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mochi/replica/data/parquet"
	"mochi/replica/data/shards"
	"mochi/replica/data/unpacked"
)

// scanShard scans the shard at a path, after it was unpacked where that is needed: its
// content says so, not its name. A shard that cannot be read is one with Fault; an error
// is of the place it is unpacked to, or says that there is no such file.
func scanShard(path string, o Options) (*shards.Shard, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() { // a pipe would be waited for
		return &shards.Shard{Path: path, Fault: errors.New("it is no plain file")}, nil
	}
	switch head := readHead(path); {
	case unpacked.IsGzip(head):
		return scanUnpacked(path, unpacked.Gzip(), o)
	case parquet.Is(head), shards.SuffixOf(path) == parquet.Suffix:
		s, err := scanUnpacked(path, parquet.Images(), o)
		if err == nil {
			byRow(s)
		}
		return s, err
	}
	s, err := shards.ScanFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, err
	case err != nil:
		s = &shards.Shard{Path: path, Fault: errors.Unwrap(err)}
		if s.Fault == nil {
			s.Fault = err
		}
	}
	return s, nil
}

// scanUnpacked scans what a shard is unpacked to.
func scanUnpacked(path string, m unpacked.Maker, o Options) (*shards.Shard, error) {
	file, err := unpacked.Folder{Dir: o.Unpack, Progress: o.Progress}.Open(path, m)
	var damaged *unpacked.DamagedError
	if errors.As(err, &damaged) {
		return &shards.Shard{Path: path, Fault: damaged}, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := shards.ScanFile(file)
	if err != nil {
		return nil, err
	}
	s.Path = path
	return s, nil
}

// byRow makes the account of a table's rows out of that of the members it was unpacked to:
// each row is a .json, beside an image where it has one.
func byRow(s *shards.Shard) {
	s.Read = 0
	s.Members = len(s.Samples) + len(s.Left)
	for i := range s.Left {
		s.Left[i].Name = strings.TrimSuffix(s.Left[i].Name, ".json")
	}
}

// packedNote says which shards are read from where they were unpacked to, "" for none.
func packedNote(scanned []*shards.Shard) string {
	n, bytes, dir := 0, int64(0), ""
	for _, s := range scanned {
		if s.File != "" && s.File != s.Path {
			n, bytes, dir = n+1, bytes+s.Size, filepath.Dir(s.File)
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s packed: unpacked once, and read from %s (%s MB, which can be removed)", plural(n, "shard is", "shards are"), dir, count(int((bytes+1<<20-1)>>20)))
}
