package data

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"mochi/replica/data/naming"
)

// known is a kind of file that is no image that is read.
type known struct {
	reason Reason
	what   string // for people
	do     string // what to do with a data set of it, "" for nothing
}

// textEndings are of texts, tables and programs.
var textEndings = []string{
	".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".md", ".rst", ".html", ".htm", ".pdf", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".list", ".lst",
	".names", ".names-list", ".py", ".ipynb", ".m", ".sh", ".bat", ".go", ".c", ".h", ".tex", ".bib", ".doc", ".docx", ".xls", ".xlsx", ".sql", ".cls", ".label", ".labels", ".caption", ".srt",
	".md5", ".sha1", ".sha256", ".sum", ".part", ".tmp", ".bak", ".lnk", ".url", ".db", ".sqlite",
}

// unreadEndings are of images and films that are not read.
var unreadEndings = []string{
	".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".xcf", ".eps", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".exr", ".hdr", ".dds", ".dcm", ".nii", ".fits",
	".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".wav", ".mp3", ".flac", ".ogg",
}

const (
	unpack = "unpack it, and give the folder"
	export = "write its images to folders, one a class, or to WebDataset shards"
)

// recognise says what a file is, by its name and its first bytes (nil: the name
// alone); reason "" when that is not known.
func recognise(name string, head []byte) known {
	lower := strings.ToLower(name)
	ext := filepath.Ext(lower)
	has := func(at int, magic string) bool {
		return len(head) >= at && bytes.HasPrefix(head[at:], []byte(magic))
	}
	ends := func(list ...string) bool {
		return slices.ContainsFunc(list, func(e string) bool { return strings.HasSuffix(lower, e) })
	}
	pickled := has(0, "\x80\x02") || has(0, "\x80\x03") || has(0, "\x80\x04") || has(0, "\x80\x05")
	switch {
	case pickled && (strings.HasPrefix(lower, "data_batch_") || strings.HasPrefix(lower, "test_batch") || slices.Contains([]string{"train", "test", "meta", "batches.meta"}, lower)):
		return known{naming.Container, "CIFAR as Python pickles", "give the folder that has data_batch_1 to data_batch_5 (CIFAR-10) or train (CIFAR-100)"}
	case ends(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"), has(257, "ustar"):
		return known{naming.Container, "a tar archive", "give the .tar or .tar.gz itself as --data; unpack one that is packed otherwise"}
	case ends(".npz", ".npy"), has(0, "\x93NUMPY"):
		return known{naming.Container, "NumPy arrays", export}
	case ends(".zip", ".7z", ".rar"), has(0, "PK\x03\x04"), has(0, "7z\xbc\xaf"), has(0, "Rar!"):
		if ends(".zip") {
			return known{naming.Container, "a zip archive", "give the .zip itself, or unpack it"}
		}
		return known{naming.Container, "an archive", unpack}
	case ends(".gz", ".bz2", ".xz", ".zst"), has(0, "\x1f\x8b"):
		return known{naming.Container, "a packed file", unpack}
	case ext == ".parquet", has(0, "PAR1"):
		return known{naming.Container, "a parquet table without images", export}
	case ext == ".arrow", ext == ".feather", has(0, "ARROW1"):
		return known{naming.Container, "an Arrow table", export}
	case strings.Contains(lower, "tfrecord"):
		return known{naming.Container, "TFRecord files", export}
	case ext == ".h5", ext == ".hdf5", has(0, "\x89HDF"):
		return known{naming.Container, "an HDF5 file", export}
	case lower == "data.mdb", lower == "lock.mdb", ext == ".mdb", ext == ".lmdb":
		return known{naming.Container, "an LMDB data base", export}
	case ext == ".rec", ext == ".idx" && !strings.Contains(lower, "ubyte"), ext == ".beton":
		return known{naming.Container, "records of MXNet or FFCV", export}
	case strings.Contains(lower, "ubyte"):
		return known{naming.Container, "an IDX file", "give the folder that holds training images and labels together"}
	case ends(".pt", ".pth", ".pkl", ".pickle", ".mat", ".safetensors", ".ckpt"), pickled:
		return known{naming.Container, "arrays of Python or MATLAB", export}
	case slices.Contains(unreadEndings, ext):
		return known{naming.Unread, "images or films (" + ext + ")", "convert them to JPEG or PNG"}
	case has(4, "ftyp"), has(0, "\x00\x00\x00\x0cjP  "), has(0, "\xff\x0a"):
		return known{naming.Unread, "images or films", "convert them to JPEG or PNG"}
	case slices.Contains(textEndings, ext), slices.Contains([]string{"readme", "license", "licence", "copying", "makefile", "changelog"}, lower):
		return known{naming.Text, "texts (" + ext + ")", ""}
	case len(head) > 0 && isText(head):
		return known{naming.Text, "texts", ""}
	case has(0, "\xff\xd8"):
		return known{naming.Unread, "a JPEG file with a damaged beginning", ""}
	}
	return known{}
}

// isText says whether the first bytes of a file are a text, whose last letter may be
// cut.
func isText(head []byte) bool {
	if bytes.ContainsFunc(head, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n\f", r) }) {
		return false
	}
	for cut := range min(4, len(head)) {
		if utf8.Valid(head[:len(head)-cut]) {
			return true
		}
	}
	return false
}

// looked is how many files, and how deep, are looked at to say what a folder holds.
const looked, lookedDeep = 2000, 4

// whatHolds says what a folder holds that has no image, and what to do.
func whatHolds(dir string) string {
	var names []string
	counts := make(map[string]int)
	kinds := make(map[string]known)
	example := make(map[string]string)
	files := 0
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		switch {
		case err != nil:
			return nil
		case files >= looked:
			return filepath.SkipAll
		case d.IsDir():
			if p != dir && (naming.Skipped(d.Name()) != "" || strings.Count(rel, string(os.PathSeparator)) >= lookedDeep) {
				return filepath.SkipDir
			}
			return nil
		}
		files++
		k := recognise(d.Name(), readHead(p))
		if k.what == "" {
			k = known{naming.Unknown, "files of no known kind", ""}
		}
		if counts[k.what]++; counts[k.what] == 1 {
			names, kinds[k.what], example[k.what] = append(names, k.what), k, rel
		}
		return nil
	})
	if files == 0 {
		return "it is empty"
	}
	var said, do []string
	slices.SortStableFunc(names, func(a, b string) int { return len(kinds[b].do) - len(kinds[a].do) }) // what can be helped first
	for _, name := range names[:min(3, len(names))] {
		said = append(said, fmt.Sprintf("%s (%s)", name, example[name]))
		if d := kinds[name].do; d != "" && !slices.Contains(do, d) {
			do = append(do, d)
		}
	}
	text := "it holds " + strings.Join(said, ", ")
	if len(do) > 0 {
		text += ": " + do[0]
	}
	return text
}
