package protocol

import (
	"fmt"
	"strings"
)

// Data identifies a data set: a replica with another one is refused, with the
// differing field named.
type Data struct {
	Kind    string `json:"kind"`    // idx, folder, cifar, list, tar, zip, parquet, several
	Train   int    `json:"train"`   // training samples
	Classes int    `json:"classes"` // 0 when unlabelled
	Digest  string `json:"digest"`  // of the sorted listing (names and sizes) or of the file heads

	// ClassList is the digest of --classes (config.ClassesDigest); "" is all.
	ClassList string `json:"class_list,omitempty"`

	// Shards is the content of shards that were read in full, as those are that come
	// over a network: words of a name, ShardMark and a digest (replica/data/remote).
	// "" where it is not known, as of files; then it is not compared.
	Shards string `json:"shards,omitempty"`

	// JPEG names what decodes JPEG, with a digest of the pixels that it makes;
	// "" where the samples are no image files. The coordinator's copy has that of
	// the last steps.
	JPEG string `json:"jpeg,omitempty"`

	// Numerics of the engines that computed the last steps. Only the coordinator's
	// copy has it; "" before the first step.
	Numerics string `json:"numerics,omitempty"`
}

// ShardMark stands between the name and the digest of a shard, in Data.Shards.
const ShardMark = "="

// OtherShards says which shards of d have another content in e: "" where none has, or
// where that is not known of one of the two, or they are cut into shards otherwise (the
// samples are Digest's matter). Names do not count.
func (d Data) OtherShards(e Data) string {
	have, want := strings.Fields(d.Shards), strings.Fields(e.Shards)
	if len(have) != len(want) {
		return ""
	}
	var other []string
	for i := range have {
		name, digest, _ := strings.Cut(have[i], ShardMark)
		if _, now, _ := strings.Cut(want[i], ShardMark); now != digest {
			other = append(other, name)
		}
	}
	const shown = 3
	if n := len(other); n > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(other[:shown], ", "), n-shown)
	}
	return strings.Join(other, ", ")
}

// Same says whether samples of d are samples of e: both are of one data set, as far as
// is known.
func (d Data) Same(e Data) bool {
	if d.OtherShards(e) != "" {
		return false
	}
	d.Shards, e.Shards = "", ""
	return d == e
}
