package data

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"mochi/replica/data/shards"
)

// FashionMNIST is the name that stands for the data of Debian's package
// dataset-fashion-mnist.
const FashionMNIST = "fashion-mnist"

// Options are what Open may be told.
type Options struct {
	// MaxPixels is the largest image that is decoded, width times height; a
	// larger one counts as corrupt. Default 100 million.
	MaxPixels int
	// FashionMNIST is where the package's files lie. Default
	// /usr/share/datasets/fashion-mnist.
	FashionMNIST string
	// Progress, when not nil, is told now and then how far a large listing is,
	// possibly from several goroutines.
	Progress func(text string)

	readDir func(string) ([]os.DirEntry, error) // os.ReadDir, but for tests
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// DefaultOptions are those of Open.
func DefaultOptions() Options {
	return Options{MaxPixels: 100_000_000, FashionMNIST: "/usr/share/datasets/fashion-mnist", readDir: os.ReadDir}
}

// Open recognises the data set at path, or the one named fashion-mnist (a
// folder of that name is ./fashion-mnist).
func Open(path string) (*Set, error) { return OpenWith(path, DefaultOptions()) }

// OpenWith is Open with options.
func OpenWith(path string, o Options) (*Set, error) {
	if o.readDir == nil {
		o.readDir = os.ReadDir
	}
	if path == FashionMNIST {
		return openFashionMNIST(o)
	}
	if shards.IsPattern(path) {
		return openShards(path, o)
	}
	for _, packed := range []string{".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".zip"} {
		if strings.HasSuffix(path, packed) {
			return nil, fmt.Errorf("data %s: compressed archives allow no access at random: unpack it to a folder or to a plain .tar", path)
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("data %s: no such folder; want a folder of images, IDX or CIFAR files, tar shards 'PREFIX-{000..009}.tar', or the name %s", path, FashionMNIST)
	case err != nil:
		return nil, fmt.Errorf("data: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("data %s: is a file, and no .tar; give the folder that it lies in", path)
	}
	names, err := files(path)
	if err != nil {
		return nil, err
	}
	if set, err := openCIFAR(path, names); set != nil || err != nil {
		return set, err
	}
	for _, sub := range []string{"cifar-10-batches-bin", "cifar-100-binary"} { // as unpacked
		dir := filepath.Join(path, sub)
		names, err := files(dir)
		if err != nil {
			continue // not there
		}
		if set, err := openCIFAR(dir, names); set != nil || err != nil {
			return set, err
		}
	}
	if set, err := openIDX(path, names); set != nil || err != nil {
		return set, err
	}
	if set, err := openShardFolder(path, names, o); set != nil || err != nil {
		return set, err
	}
	return openFolder(path, o)
}

func openFashionMNIST(o Options) (*Set, error) {
	names, err := files(o.FashionMNIST)
	if err == nil {
		var set *Set
		if set, err = openIDX(o.FashionMNIST, names); set != nil {
			set.Announce = "Fashion-MNIST: " + set.Announce
			return set, nil
		}
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data %s: nothing in %s; install it with: apt-get install dataset-fashion-mnist", FashionMNIST, o.FashionMNIST)
	}
	return nil, err
}

// files lists the plain files of a folder, sorted, hidden ones left out.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// count writes a number with thousands separated, as people read it.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 class", "10 classes".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}
