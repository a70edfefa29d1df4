package torch

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

// maxEntries is more storages than any encoder has.
const maxEntries = 1 << 16

// openZip reads the form of PyTorch 1.6 and later.
func openZip(r io.ReaderAt, size int64) (any, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("it is a zip whose directory is missing or damaged (cut short, perhaps: was the download complete?): %w", err)
	}
	if len(z.File) > maxEntries {
		return nil, fmt.Errorf("a zip of %d files", len(z.File))
	}
	entries := map[string]*zip.File{}
	top := ""
	for i, f := range z.File {
		folder, _, inside := strings.Cut(f.Name, "/")
		if i == 0 && inside {
			top = folder
		}
		entries[f.Name] = f
	}
	find := func(name string) *zip.File { return entries[top+"/"+name] }
	if find("constants.pkl") != nil {
		return nil, errors.New("it is a TorchScript archive, a program; what is needed is its state_dict: torch.save(torch.jit.load(FILE).state_dict(), OUT)")
	}
	text := find("data.pkl")
	if text == nil {
		return nil, errors.New("it is a zip, but not of torch.save: there is no data.pkl in it")
	}
	if order := find("byteorder"); order != nil {
		b := make([]byte, 8)
		part, err := stored(r, size, order)
		if err != nil {
			return nil, err
		}
		n, _ := part.ReadAt(b, 0) // up to its end
		if said := strings.TrimSpace(string(b[:n])); said != "little" {
			return nil, fmt.Errorf("its numbers are in byte order %q; only little is known", said)
		}
	}
	part, err := stored(r, size, text)
	if err != nil {
		return nil, err
	}
	t := &tensors{types: storageTypes(), locate: func(s *storage) error {
		entry := find("data/" + s.key)
		if entry == nil {
			return fmt.Errorf("storage %q is not in the zip", s.key)
		}
		part, err := stored(r, size, entry)
		if err != nil {
			return err
		}
		if want := s.numel * max(1, s.typ.Size()); s.typ != "" && want > part.Size() {
			return fmt.Errorf("storage %q has %d bytes, not %d", s.key, part.Size(), want)
		}
		s.located = &array.Storage{File: part, Bytes: part.Size()}
		return nil
	}}
	p := pickle.NewReader(part)
	p.Hook = t.hook
	return p.Next()
}

// stored is where an entry lies, which must be as PyTorch writes them: neither
// encrypted nor compressed.
func stored(r io.ReaderAt, size int64, f *zip.File) (*io.SectionReader, error) {
	const encrypted = 1
	switch {
	case f.Flags&encrypted != 0:
		return nil, fmt.Errorf("%s in it is encrypted: unpack it with its password and save it again", f.Name)
	case f.Method != zip.Store:
		return nil, fmt.Errorf("%s in it is compressed, as torch.save never does: load and save it again", f.Name)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, cutShort("its header", err))
	}
	if f.UncompressedSize64 > uint64(size) || at < 0 || at > size-int64(f.UncompressedSize64) {
		return nil, fmt.Errorf("%s in it should have %d bytes, more than the file", f.Name, f.UncompressedSize64)
	}
	return io.NewSectionReader(r, at, int64(f.UncompressedSize64)), nil
}
