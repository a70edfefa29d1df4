package data

import (
	"encoding/hex"
	"hash"

	"mochi/coordinator/protocol"
)

// describe fills in what people are told of a set whose splits are known, and
// what identifies it, of image files with what decodes them. title says what was recognised and where, of what more
// there is to say of the training images ("" for nothing), notes what does not
// count or is missing; digest has taken in the training split.
func (s *Set) describe(title, of string, digest hash.Hash, notes ...string) {
	tests, classes := "no test images", "no classes"
	if s.Test != nil {
		tests = plural(s.Test.Len(), "test image", "test images")
	}
	if n := s.Train.Classes(); n > 0 {
		classes = plural(n, "class", "classes")
	}
	s.Announce = title + ": " + plural(s.Train.Len(), "training image", "training images") + of + ", " + tests + ", " + classes
	for _, note := range append(s.unknown, notes...) {
		s.Announce += "\n" + note
	}
	s.Info = protocol.Data{
		Kind: s.Kind, Train: s.Train.Len(), Classes: s.Train.Classes(), Digest: hex.EncodeToString(digest.Sum(nil)[:16]),
	}
	if _, encoded := s.Train.(Encoded); encoded {
		s.Info.JPEG = decoderIdentity()
	}
}
