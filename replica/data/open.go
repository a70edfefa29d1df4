package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/replica/data/lists"
	"mochi/replica/data/remote"
	"mochi/replica/data/shards"
)

// FashionMNIST is the name that stands for the data of Debian's package
// dataset-fashion-mnist.
const FashionMNIST = "fashion-mnist"

// Options are what Open may be told.
type Options struct {
	// MaxPixels is the largest image that is decoded, width times height; a
	// larger one counts as corrupt. Default config.MostImagePixels.
	MaxPixels int
	// MaxBytes is the largest image file; a larger one counts as corrupt. Default
	// config.MostImageBytes.
	MaxBytes int64
	// FashionMNIST is where the package's files lie. Default
	// /usr/share/datasets/fashion-mnist.
	FashionMNIST string
	// Progress, when not nil, is told now and then how far a large listing is,
	// possibly from several goroutines.
	Progress func(text string)
	// Unpack is the folder to which archives are unpacked that allow no access at random;
	// "" is the user's, $XDG_CACHE_HOME/mochi/unpacked.
	Unpack string
	// Remote is how data that are not on this machine are read, and where they are
	// cached; its Progress is the one above.
	Remote remote.Options
	// CountAll counts the files in folders that are left out, too: it looks into them.
	CountAll bool

	readDir func(string) ([]os.DirEntry, error) // os.ReadDir, but for tests
	labels  string                              // the file with the labels of the test split; "": none
	bounds  *bounds                             // of the set that is opened
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// DefaultOptions are those of Open.
func DefaultOptions() Options {
	return Options{
		MaxPixels: config.MostImagePixels, MaxBytes: config.MostImageBytes,
		FashionMNIST: "/usr/share/datasets/fashion-mnist", readDir: os.ReadDir,
	}
}

// Open recognises the data set at path, or the one named fashion-mnist (a
// folder of that name is ./fashion-mnist).
func Open(path string) (*Set, error) { return OpenWith(path, DefaultOptions()) }

// OpenWith is Open with options.
func OpenWith(path string, o Options) (*Set, error) {
	if o.readDir == nil {
		o.readDir = os.ReadDir
	}
	if o.bounds == nil {
		o.bounds = newBounds(o)
	}
	if path == FashionMNIST {
		return openFashionMNIST(o)
	}
	if remote.Is(path) {
		return openRemote(path, o)
	}
	if shards.IsPattern(path) {
		return openShards(path, o)
	}
	for _, packed := range []string{".tar.zst", ".tar.xz", ".tar.bz2"} {
		if strings.HasSuffix(path, packed) {
			return nil, fmt.Errorf("%s: compressed archives allow no access at random: unpack it to a folder or to a plain .tar, or pack it as .tar.gz", path)
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such folder; want a folder of images, IDX or CIFAR files, tar shards 'PREFIX-{000..009}.tar', a list LIST.csv, or the name %s", path, FashionMNIST)
	case err != nil:
		return nil, err
	case !info.IsDir() && shards.IsZip(path):
		return openTar(path, []string{path}, nil, o, Account{Unit: "members of the archive"})
	case !info.IsDir() && lists.IsList(path):
		return openList(path, o)
	case !info.IsDir():
		return nil, fmt.Errorf("%s: is a file, and neither .tar nor .zip nor a list (.csv, .jsonl); give the folder that it lies in", path)
	}
	if set, err := openKnown(path, o); !errors.Is(err, errOther) {
		return set, err
	}
	set, err := openFolder(path, o)
	var none *noImages
	if !errors.As(err, &none) {
		return set, err
	}
	return openBelow(path, o, err)
}

// openKnown opens a folder that is of a format of its own.
func openKnown(path string, o Options) (*Set, error) {
	names, err := files(path)
	if err != nil {
		return nil, err
	}
	for _, open := range formats() {
		if set, err := open(path, names, o); !errors.Is(err, errOther) {
			return set, err
		}
	}
	return nil, errOther
}

// openBelow looks for a format in the folders below one that holds no images, as
// torchvision keeps MNIST/raw; not is the error when there is none.
func openBelow(path string, o Options, not error) (*Set, error) {
	level := []string{path}
	for range 2 {
		var below, found []string
		for _, dir := range level {
			names, err := subfolders(dir)
			if err != nil {
				continue
			}
			for _, name := range names[:min(len(names), 100)] {
				below = append(below, filepath.Join(dir, name))
			}
		}
		var set *Set
		var first error
		for _, dir := range below {
			s, err := openKnown(dir, o)
			if errors.Is(err, errOther) {
				continue
			}
			if found = append(found, dir); len(found) == 1 {
				set, first = s, err
			}
		}
		if len(found) > 1 {
			return nil, fmt.Errorf("%s: several data sets are in it, such as %s and %s: give one of them", path, found[0], found[1])
		}
		if len(found) == 1 {
			return set, first
		}
		level = below
	}
	return nil, not
}

// format opens a folder, whose plain files are names, as one kind of data set.
// It returns errOther, and nothing else, when the folder holds something else.
type format func(dir string, names []string, o Options) (*Set, error)

// errOther says that a folder is no data set of this format.
var errOther = errors.New("of another format")

// formats are tried in this order. A folder that is none of them is a folder of
// images.
func formats() []format {
	return []format{openCIFAR, openIDX, openShardFolder}
}

func openFashionMNIST(o Options) (*Set, error) {
	names, err := files(o.FashionMNIST)
	var set *Set
	if err == nil {
		set, err = openIDX(o.FashionMNIST, names, o)
	}
	if errors.Is(err, errOther) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: nothing in %s; install it with: apt-get install dataset-fashion-mnist", FashionMNIST, o.FashionMNIST)
	}
	if err != nil {
		return nil, err
	}
	set.Announce = "Fashion-MNIST: " + set.Announce
	return set, nil
}
