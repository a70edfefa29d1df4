package data

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"mochi/replica/data/naming"
)

// listing collects the images under a folder.
type listing struct {
	root    string
	o       Options
	images  []sampleFile
	account Account // what is left out
	faults  []*CorruptError
}

// listTop lists a split's folder itself: the folders in it, sorted, which may
// be classes, and what lies beside them.
func listTop(dir string, o Options) (classes []string, loose listing, err error) {
	loose = listing{root: dir, o: o}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, loose, err
	}
	names, err := subfolders(dir)
	if err != nil {
		return nil, loose, err
	}
	masks := naming.MaskFoldersAmong(names)
	var files []os.DirEntry
	for _, e := range entries { // sorted by name
		full := filepath.Join(dir, e.Name())
		info, err := os.Stat(full)
		switch why := naming.Skipped(e.Name()); {
		case err != nil || !info.IsDir():
			files = append(files, e)
			continue
		case why != "":
			loose.leaveFolder(why, e.Name())
		case masks[e.Name()]:
			loose.leaveFolder(naming.Mask, e.Name())
		case !e.IsDir() && encloses(full, dir):
			if err := loose.fault(full, errors.New("a link to a folder that this one lies in")); err != nil {
				return nil, loose, err
			}
		default:
			classes = append(classes, e.Name())
		}
	}
	return classes, loose, loose.addFiles("", files)
}

// walkAll lists what lies below each of the class folders of dir.
func walkAll(dir string, classes []string, o Options) ([]listing, error) {
	listed := make([]listing, len(classes))
	var group errgroup.Group
	group.SetLimit(readers)
	var images, done atomic.Int64
	for i, class := range classes {
		listed[i].root, listed[i].o = dir, o
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
	entries, err := l.o.readDir(dir)
	if err != nil {
		if err := l.fault(dir, err); err != nil {
			return err
		}
	}
	var folders []string
	var files []os.DirEntry
	for _, e := range entries {
		switch {
		case !e.IsDir():
			files = append(files, e)
		case naming.Skipped(e.Name()) != "":
			l.leaveFolder(naming.Skipped(e.Name()), path.Join(rel, e.Name()))
		default:
			folders = append(folders, e.Name())
		}
	}
	if err := l.addFiles(rel, files); err != nil {
		return err
	}
	masks := naming.MaskFoldersAmong(folders)
	for _, name := range folders {
		if masks[name] {
			l.leaveFolder(naming.Mask, path.Join(rel, name))
		} else if err := l.walk(path.Join(rel, name)); err != nil {
			return err
		}
	}
	return nil
}

// leaveFolder leaves out a folder with all that it holds, which is counted when that
// is asked for.
func (l *listing) leaveFolder(why Reason, rel string) {
	leaveFolder(&l.account, l.o, why, filepath.Join(l.root, filepath.FromSlash(rel)))
}

func leaveFolder(a *Account, o Options, why Reason, dir string) {
	if !o.CountAll {
		a.leave(why, 0, 1, dir)
		return
	}
	files, example := 0, dir
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { // what cannot be read is left out too
		if err == nil && !d.IsDir() {
			if files == 0 {
				example = p
			}
			files++
		}
		return nil
	})
	a.leave(why, files, 0, example)
}

// addFiles adds the files of one folder.
func (l *listing) addFiles(rel string, files []os.DirEntry) error {
	first := len(l.images)
	for _, e := range files {
		if err := l.add(path.Join(rel, e.Name()), e); err != nil {
			return err
		}
	}
	var names []string
	for _, f := range l.images[first:] {
		names = append(names, path.Base(f.path))
	}
	if masks := naming.MasksAmong(names); len(masks) > 0 {
		kept := slices.DeleteFunc(l.images[first:], func(f sampleFile) bool {
			mask := masks[path.Base(f.path)]
			if mask {
				l.account.leave(naming.Mask, 1, 0, l.full(f.path))
			}
			return mask
		})
		l.images = l.images[:first+len(kept)]
	}
	return nil
}

func (l *listing) full(rel string) string { return filepath.Join(l.root, filepath.FromSlash(rel)) }

// add adds one file: an image by its extension, so that a large folder is not
// opened file by file, or else by its first bytes. Whether it can be decoded
// shows when it is.
func (l *listing) add(rel string, e os.DirEntry) error {
	full := l.full(rel)
	if full == l.o.labels { // counted by who reads it
		return nil
	}
	if why := naming.Skipped(e.Name()); why != "" {
		l.account.leave(why, 1, 0, full)
		return nil
	}
	info, err := e.Info()
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		info, err = os.Stat(full)
	}
	switch {
	case err != nil && os.IsNotExist(err):
		l.account.leave(naming.DeadLink, 1, 0, full)
	case err != nil:
		return l.fault(full, err)
	case info.IsDir():
		l.account.leave(naming.FolderLink, 1, 0, full)
	case !info.Mode().IsRegular():
		l.account.leave(naming.Special, 1, 0, full)
	default:
		if why := kindOfFile(full, info.Size()); why != "" {
			l.account.leave(why, 1, 0, full)
			return nil
		}
		l.images = append(l.images, sampleFile{path: rel, size: info.Size()})
	}
	return nil
}

// kindOfFile is "" for an image, by its name or its first bytes, else why it is none.
func kindOfFile(full string, size int64) Reason {
	if naming.IsImage(full) {
		return ""
	}
	what := recognise(filepath.Base(full), nil)
	if what.reason != "" {
		return what.reason
	}
	head := readHead(full)
	if kindOf(head) != noImage {
		return ""
	}
	if what = recognise(filepath.Base(full), head); what.reason != "" {
		return what.reason
	}
	if size == 0 {
		return naming.Text // an empty file: a mark of some program
	}
	return naming.Unknown
}

// readHead is the first bytes of a file, fewer where there are no more.
func readHead(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 512)
	n, _ := io.ReadFull(f, head)
	return head[:n]
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
