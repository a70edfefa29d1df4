package data

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readContent reads an image file that may hold an image of maxPixels into d's
// buffer. A file that is gone, may not be read or whose disk fails is a
// *CorruptError like one that cannot be decoded; other failures of the system
// are not.
func readContent(path string, maxPixels int, d *Decoder) ([]byte, error) {
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
	if err := checkLength(info.Size(), maxPixels); err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	content := d.Content(int(info.Size()))
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fileFault(path, err)
	}
	return content[:n], nil // shorter where the file was cut meanwhile
}

// checkLength refuses a file that is longer than an image of maxPixels can
// be: eight bytes a pixel and a megabyte.
func checkLength(length int64, maxPixels int) error {
	if limit := int64(maxPixels)*8 + 1<<20; length > limit {
		return fmt.Errorf("file is too large for an image: %d bytes, the limit is %d", length, limit)
	}
	return nil
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

// cut makes the end of a file an error that people understand.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file is cut short")
	}
	return err
}
