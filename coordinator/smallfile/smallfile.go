// Package smallfile reads files that people name, whole: lists, settings, keys. What is no
// file, or longer than such a file can be, is an error and not a wait without end.
package smallfile

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// Read reads a file of at most so many bytes, as os.ReadFile. What is no file but a folder, a
// pipe or a device, which would hold up who reads it or never end, is an error.
func Read(path string, most int64) ([]byte, error) {
	text, _, err := ReadInfo(path, most)
	return text, err
}

// ReadInfo is Read, with what the file was when it was opened.
func ReadInfo(path string, most int64) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer would be waited for
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is no file but %s: name a file", path, kind(info.Mode()))
	case info.Size() > most:
		return nil, nil, fmt.Errorf("%s has %d bytes, at most %d are read of such a file", path, info.Size(), most)
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s grows while it is read, beyond %d bytes", path, most)
	}
	return text, info, err
}

func kind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
