package eval

import (
	"fmt"

	"mochi/model/network"
)

// Feature says which output of the encoder is evaluated.
type Feature string

// The features of the command line.
const (
	Backbone  Feature = "backbone"  // after global average pooling, [FeatureDim]
	Embedding Feature = "embedding" // after the head, [Dim]
)

// Len is the length of a feature of net, or an error that lists the known
// features.
func (f Feature) Len(net *network.Network) (int, error) {
	switch f {
	case Backbone:
		return net.FeatureDim, nil
	case Embedding:
		return net.Dim, nil
	}
	return 0, fmt.Errorf("feature: unknown %q; known are %s, %s", f, Backbone, Embedding)
}
