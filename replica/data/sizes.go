package data

// Sized is Encoded whose samples' lengths are known without reading them.
type Sized interface {
	Encoded
	Size(i int) int64 // bytes
}

// Size is the length of sample i's file when it was listed.
func (s *folderSplit) Size(i int) int64 { return s.samples[i].size }

// Size is the length of sample i in its shard.
func (s *tarSplit) Size(i int) int64 { return s.samples[i].length }

// Size is that of the sample chosen; 0 where it is not known.
func (c chosenFiles) Size(i int) int64 {
	if s, is := c.files.(Sized); is {
		return s.Size(int(c.at[i]))
	}
	return 0
}
