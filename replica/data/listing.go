package data

import (
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// listing collects the images under a folder.
type listing struct {
	root    string
	readDir func(string) ([]os.DirEntry, error)
	images  []sampleFile
	other   []string // files that are no images
	faults  []*CorruptError
}

// listTop lists a split's folder itself: the folders in it, sorted, which may
// be classes, and what lies beside them.
func listTop(dir string, o Options) (classes []string, loose listing, err error) {
	loose = listing{root: dir, readDir: o.readDir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, loose, err
	}
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		full := filepath.Join(dir, e.Name())
		info, err := os.Stat(full)
		switch {
		case err != nil || !info.IsDir():
			err = loose.add(e.Name(), e)
		case !e.IsDir() && encloses(full, dir):
			err = loose.fault(full, errors.New("a link to a folder that this one lies in"))
		default:
			classes = append(classes, e.Name())
			err = nil
		}
		if err != nil {
			return nil, loose, err
		}
	}
	return classes, loose, nil
}

// walkAll lists what lies below each of the class folders of dir.
func walkAll(dir string, classes []string, o Options) ([]listing, error) {
	listed := make([]listing, len(classes))
	var group errgroup.Group
	group.SetLimit(readers)
	var images, done atomic.Int64
	for i, class := range classes {
		listed[i].root, listed[i].readDir = dir, o.readDir
		group.Go(func() error {
			err := listed[i].walk(class)
			o.progress("listed %d of %s, %s images", done.Add(1), plural(len(classes), "folder", "folders"), count(int(images.Add(int64(len(listed[i].images))))))
			return err
		})
	}
	return listed, group.Wait()
}

// fault notes what cannot be read. The error is the process's own fault.
func (l *listing) fault(path string, err error) error {
	err = fileFault(path, err)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		l.faults = append(l.faults, corrupt)
		return nil
	}
	return err
}

// walk adds everything below the folder rel. Links to folders are followed
// only where they are a class, so that the walk ends.
func (l *listing) walk(rel string) error {
	dir := filepath.Join(l.root, filepath.FromSlash(rel))
	entries, err := l.readDir(dir)
	if err != nil {
		if err := l.fault(dir, err); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := path.Join(rel, e.Name())
		if e.IsDir() {
			err = l.walk(name)
		} else {
			err = l.add(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add adds one file: an image by its extension, so that a large folder is not
// opened file by file, or else by its first bytes. Whether it can be decoded
// shows when it is.
func (l *listing) add(rel string, e os.DirEntry) error {
	full := filepath.Join(l.root, filepath.FromSlash(rel))
	info, err := e.Info()
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		info, err = os.Stat(full)
	}
	if err != nil {
		if os.IsNotExist(err) { // a dangling link
			l.other = append(l.other, rel)
			return nil
		}
		return l.fault(full, err)
	}
	if !info.Mode().IsRegular() || !looksLikeImage(full) {
		l.other = append(l.other, rel)
		return nil
	}
	l.images = append(l.images, sampleFile{path: rel, size: info.Size()})
	return nil
}

func looksLikeImage(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".jpg", ".jpeg", ".png":
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(pngMagic))
	n, _ := io.ReadFull(f, head)
	return kindOf(head[:n]) != noImage
}

// encloses says whether a link leads to a folder that dir lies in, or to dir.
func encloses(link, dir string) bool {
	target, err := os.Stat(link)
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return false
	}
	for at := real; ; at = filepath.Dir(at) {
		if above, err := os.Stat(at); err == nil && os.SameFile(above, target) {
			return true
		}
		if at == filepath.Dir(at) {
			return false
		}
	}
}
