package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

// magic begins a file of the old form: a pickle of this number.
const magic = "1950a86a20f9469cfc6c"

// oldProtocol is the version of the old form.
const oldProtocol = 1001

// get is what a dict has under a key, nil where there is none.
func get(d *pickle.Dict, key string) any {
	v, _ := d.Get(key)
	return v
}

// openLegacy reads the form of before PyTorch 1.6: pickles of the magic number,
// the version, the writer's machine, the value, and the keys of the storages;
// then for each key the number of its elements and the elements.
func openLegacy(r io.ReaderAt, size int64) (any, error) {
	p := pickle.NewReader(io.NewSectionReader(r, 0, size))
	number, err := p.Next()
	if err != nil {
		return nil, err
	}
	if n, isBig := number.(*big.Int); !isBig || n.Text(16) != magic {
		return nil, errors.New("it does not begin with the number of torch.save")
	}
	if version, err := p.Next(); err != nil {
		return nil, err
	} else if version != int64(oldProtocol) {
		return nil, fmt.Errorf("its version is %v, not %d", version, oldProtocol)
	}
	system, err := p.Next()
	if err != nil {
		return nil, err
	}
	if d, isDict := system.(*pickle.Dict); isDict {
		if little, isBool := get(d, "little_endian").(bool); isBool && !little {
			return nil, errors.New("its numbers are in byte order \"big\"; only little is known")
		}
	}
	storages := map[string]*array.Storage{}
	types := map[string]array.Type{}
	t := &tensors{types: storageTypes(), locate: func(s *storage) error {
		if storages[s.key] == nil {
			storages[s.key], types[s.key] = &array.Storage{File: r}, s.typ
		}
		s.located = storages[s.key]
		return nil
	}}
	p.Hook = t.hook
	root, err := p.Next()
	if err != nil {
		return nil, err
	}
	p.Hook = nil
	keys, err := p.Next()
	if err != nil {
		return nil, err
	}
	list, isList := keys.(*pickle.List)
	if !isList {
		return nil, errors.New("after its value the keys of its storages should stand")
	}
	at := p.Offset()
	for _, k := range list.Items {
		key, isText := k.(string)
		place := storages[key]
		if !isText || place == nil {
			return nil, fmt.Errorf("storage %v is of no tensor", k)
		}
		var b [8]byte
		if n, err := r.ReadAt(b[:], at); n < len(b) {
			return nil, cutShort("its storages", err)
		}
		numel, width := binary.LittleEndian.Uint64(b[:]), types[key].Size()
		at += int64(len(b))
		if width == 0 {
			return nil, fmt.Errorf("storage %q is of a type that is not known, and so is where the next one begins", key)
		}
		if numel > uint64((size-at)/width) {
			return nil, fmt.Errorf("it is cut short: storage %q should have %d elements, more than the file has", key, numel)
		}
		place.Base, place.Bytes = at, int64(numel)*width
		at += place.Bytes
	}
	return root, nil
}
