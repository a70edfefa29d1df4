package unpacked

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"os"
)

// A gzip file may unpack to a thousand times its size. Archives of images do not: what
// is above unpackedAnyway bytes may be maxRatio times as much.
const (
	maxRatio       = 100
	unpackedAnyway = 64 << 20
)

var gzipMagic = []byte{0x1f, 0x8b}

// IsGzip says whether a file that begins so is packed by gzip.
func IsGzip(head []byte) bool { return bytes.HasPrefix(head, gzipMagic) }

// Gzip unpacks a gzip file, of one part or several.
func Gzip() Maker {
	return Maker{Kind: "gz", Make: func(out io.Writer, source *os.File) error {
		info, err := source.Stat()
		if err != nil {
			return err
		}
		return gunzip(out, source, max(unpackedAnyway, info.Size()*maxRatio))
	}}
}

// gunzip unpacks at most so many bytes.
func gunzip(out io.Writer, source io.Reader, most int64) error {
	in := bufio.NewReaderSize(source, 1<<18)
	z, err := gzip.NewReader(in)
	if err != nil {
		return damaged(err)
	}
	for {
		z.Multistream(false)
		n, err := io.Copy(out, io.LimitReader(from{z}, most+1))
		var bad *readError
		switch {
		case errors.As(err, &bad):
			return damaged(bad.error)
		case err != nil:
			return err
		case n > most:
			return Damaged("it unpacks to more than %d times its size, the limit: no archive of images is packed so well (unpack it, if it is right)", maxRatio)
		}
		most -= n
		if end, err := skipZeros(in); err != nil || end {
			return err
		}
		if err := z.Reset(in); err != nil {
			return Damaged("behind its end there is something that is no gzip file: %w", err)
		}
	}
}

// skipZeros passes over the zeros with which tapes are filled up.
func skipZeros(in *bufio.Reader) (end bool, err error) {
	for {
		b, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil:
			return false, err
		case b != 0:
			return false, in.UnreadByte()
		}
	}
}

// from marks the errors of reading, which are the source's.
type from struct{ r io.Reader }

type readError struct{ error }

// Unwrap returns the cause.
func (e *readError) Unwrap() error { return e.error }

// Read implements io.Reader.
func (f from) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}

// damaged says what an error of gzip means.
func damaged(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Damaged("the packed file is cut short")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &corrupt):
		return Damaged("the packed file is damaged: %w", err)
	}
	return err
}
