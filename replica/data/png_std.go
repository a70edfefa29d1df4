//go:build !libdeflate

package data

import "mochi/replica/augment"

// fastPNG is nil: image/png decodes every PNG file of this build.
func fastPNG(*Decoder, []byte) *augment.Image { return nil }
