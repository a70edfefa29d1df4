// Package naming knows what names of files and folders mean in data sets, as people and
// their programs give them: which is an image, a mask of one, a split, or rubbish. It
// opens nothing.
package naming

// Reason says why a file is no part of a data set. docs/data.md has the rule of each
// but Unknown.
type Reason string

// The reasons. As text they follow "left out: 3 files, ".
const (
	Hidden      Reason = "hidden (names that begin with a dot)"
	System      Reason = "thumbnails, trash and the like of a file server or a system"
	FolderLink  Reason = "links to folders, which are followed as classes only"
	DeadLink    Reason = "links that lead nowhere"
	Mask        Reason = "masks, depth maps and the like, by their names beside an image's"
	Several     Reason = "further images of a sample that has one already"
	Loose       Reason = "images outside any class folder"
	OtherSplit  Reason = "in folders beside the splits that are used"
	Text        Reason = "texts, tables and programs"
	Unread      Reason = "images and films of formats that are not read"
	Container   Reason = "archives and data files, which are a data set of their own"
	NoImage     Reason = "of samples without an image"
	Field       Reason = "fields of samples that are neither image nor label"
	Overwritten Reason = "members that come again later in their shard, which counts"
	Sparse      Reason = "sparse members (pack the shard again without --sparse)"
	Locked      Reason = "members that are encrypted, or packed in a way that is not read"
	Special     Reason = "no plain files"
	Unlisted    Reason = "not named by the list"
	Missing     Reason = "named by the list, and not there"
	Outside     Reason = "outside the folder of the list that names them"
	Doubled     Reason = "named by an earlier line of the list already"
	Contrary    Reason = "named by an earlier line of the list already, with another label"
	BadLine     Reason = "lines that are not understood"
	OtherPart   Reason = "of splits that are not used"
	Unknown     Reason = "of no known kind"
)
