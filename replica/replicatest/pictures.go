package replicatest

import (
	"errors"
	"fmt"

	"mochi/coordinator/protocol"
	"mochi/replica/augment"
	"mochi/replica/data"
)

// Pictures is a data set in memory: N images of Size×Size pixels in three
// classes. Of every Bad samples, if it is not 0, one cannot be decoded.
type Pictures struct{ N, Size, Bad int }

// Len is N.
func (p Pictures) Len() int { return p.N }

// Classes is 3.
func (p Pictures) Classes() int { return 3 }

// Label of sample i.
func (p Pictures) Label(i int) int32 { return int32(i % 3) }

// Path names sample i.
func (p Pictures) Path(i int) string { return fmt.Sprintf("picture %d", i) }

// Decode draws sample i.
func (p Pictures) Decode(i int, d *data.Decoder) (*augment.Image, error) {
	if p.Bad > 0 && i%p.Bad == 0 {
		return nil, &data.CorruptError{Path: p.Path(i), Err: errors.New("test")}
	}
	img := d.Image(p.Size, p.Size)
	for j := range img.Pix {
		img.Pix[j] = uint8((i*131 + j*j*7 + j*(i%5)) % 251)
	}
	return img, nil
}

// Set is the data set as a replica takes it.
func (p Pictures) Set() *data.Set {
	return &data.Set{Train: p, Info: protocol.Data{Kind: "test", Train: p.N}}
}
