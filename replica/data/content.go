package data

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readContent reads an image file into d's buffer, within a budget. A file that is gone, may not be read or whose disk fails is a
// *CorruptError like one that cannot be decoded; other failures of the system
// are not.
func readContent(path string, b *budget, d *Decoder) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileFault(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fileFault(path, err)
	case !info.Mode().IsRegular():
		return nil, &CorruptError{Path: path, Err: errors.New("it is no plain file")}
	case info.Size() == 0:
		return nil, &CorruptError{Path: path, Err: errEmpty}
	}
	if err := b.checkLength(info.Size()); err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	d.file.take(b.files, info.Size(), b.bytes)
	content := d.Content(int(info.Size()))
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fileFault(path, err)
	}
	return content[:n], nil // shorter where the file was cut meanwhile
}

// fileFault is the error of an image file that cannot be read: the file's
// fault, unless the process has run out of something.
func fileFault(path string, err error) error {
	if exhausted(err) {
		return err
	}
	var at *fs.PathError
	if errors.As(err, &at) { // the path is said already
		err = at.Err
	}
	return &CorruptError{Path: path, Err: err}
}

func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// errCut says that a file ends too early.
var errCut = errors.New("the file is cut short")

// cut makes the end of a file an error that people understand.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
