package data

import (
	"errors"
	"fmt"

	"mochi/replica/augment"
)

// Unreplaced is the samples of l without replacements, for what goes by labels:
// Decode of a corrupt sample returns its *CorruptError, reported as l reports it.
// Of strict data it is an error that no caller takes for a sample's own.
func (l *Lenient) Unreplaced() Dataset { return unreplaced{l.Dataset, l} }

type unreplaced struct {
	Dataset
	of *Lenient
}

func (u unreplaced) Decode(i int, d *Decoder) (*augment.Image, error) {
	img, err := u.Dataset.Decode(i, d)
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		return img, err
	}
	u.of.note(i, corrupt)
	if u.of.strict.Load() {
		return nil, fmt.Errorf("%v (--strict-data)", corrupt)
	}
	return nil, corrupt
}
