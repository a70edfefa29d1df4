package data

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What tests unpack is not left in the user's folder.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "mochi-data")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_CACHE_HOME", dir)
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// unpackingTo are options with a folder to unpack to, and what progress was told.
func unpackingTo(dir string) (Options, *[]string) {
	var said []string
	var mu sync.Mutex // several shards are unpacked at a time
	o := DefaultOptions()
	o.Unpack = dir
	o.Progress = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	}
	return o, &said
}

// Packed shards are the shards that they unpack to, under all names, and by their
// content: the same samples, classes, pixels, counts and digest. They are unpacked once.
func TestPackedShards(t *testing.T) {
	dir, packed, cache := t.TempDir(), t.TempDir(), t.TempDir()
	webdataset(t, filepath.Join(dir, "train-%03d.tar"), []string{"2", "0"}, []string{"1", "0"})
	webdataset(t, filepath.Join(dir, "val-%03d.tar"), []string{"1", "7"})
	for _, names := range [][2]string{{"train-000.tar", "train-000.tar.gz"}, {"train-001.tar", "train-001.tar.gz"}, {"val-000.tar", "val-000.tar.gz"}} {
		content, err := os.ReadFile(filepath.Join(dir, names[0]))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(packed, names[1]), gzipped(t, content))
		write(t, filepath.Join(packed, "tgz", strings.TrimSuffix(names[0], ".tar")+".tgz"), gzipped(t, content))
		write(t, filepath.Join(packed, "plain", names[0]), gzipped(t, content)) // its name is wrong
	}
	o := DefaultOptions()
	plain, err := OpenWith(filepath.Join(dir, "train-{000..001}.tar"), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"train-{000..001}.tar.gz", "train-{000..}.tar.gz", "train-*.tar.gz", "tgz/train-{000..001}.tgz", "tgz", "plain"} {
		o, said := unpackingTo(cache)
		path = filepath.Join(packed, path)
		set, err := OpenWith(path, o)
		if err != nil {
			t.Fatal(err)
		}
		if set.Info != plain.Info || !slices.Equal(widths(t, set.Train), widths(t, plain.Train)) || !slices.Equal(labelsOf(set.Train), labelsOf(plain.Train)) || set.Test == nil || !slices.Equal(widths(t, set.Test), widths(t, plain.Test)) {
			t.Errorf("%s: %s", path, set.Announce)
		}
		if set.Account.Sum() != plain.Account.Sum() || !strings.Contains(set.Announce, "3 shards are packed: unpacked once, and read from "+cache+" (1 MB,") || !strings.Contains(set.Train.Path(0), packed) {
			t.Errorf("%s: %s\n%s", path, set.Account.Sum(), set.Announce)
		}
		if strings.Contains(strings.Join(*said, "\n"), "unpacking") != (strings.HasSuffix(path, "..001}.tar.gz") || strings.Contains(path, "tgz/") || strings.HasSuffix(path, "plain")) {
			t.Errorf("%s: %q", path, *said)
		}
	}
	o.Unpack = cache
	one, err := OpenWith(filepath.Join(packed, "train-001.tar.gz"), o)
	if err != nil || one.Train.Len() != 2 || one.Test == nil {
		t.Errorf("a single one: %v", err)
	}
}

// A packed shard that is damaged is a fault: nothing of it is used, the others are. A
// folder that cannot be written to is an error, which is not the shard's.
func TestPackedShardsThatAreDamaged(t *testing.T) {
	dir := t.TempDir()
	good := tarBytes(t, member{"1.png", drawing(t, 1)}, member{"1.cls", []byte("0")}, member{"2.png", drawing(t, 2)}, member{"2.cls", []byte("1")})
	write(t, filepath.Join(dir, "train-0.tar.gz"), gzipped(t, good))
	cut := gzipped(t, good)
	write(t, filepath.Join(dir, "train-1.tar.gz"), cut[:len(cut)-20])
	write(t, filepath.Join(dir, "train-2.tar.gz"), gzipped(t, []byte("no tar file")))
	write(t, filepath.Join(dir, "bomb.tar.gz"), bytes.Repeat(gzipped(t, make([]byte, 1<<20)), 65))
	o, _ := unpackingTo(t.TempDir())
	set, err := OpenWith(filepath.Join(dir, "train-{0..2}.tar.gz"), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Faults) != 2 || set.Train.Len() != 2 || !strings.Contains(set.Announce, "cut short; nothing of it is used") || set.Strict() == nil {
		t.Errorf("%v\n%s", set.Faults, set.Announce)
	}
	if _, err := OpenWith(filepath.Join(dir, "bomb.tar.gz"), o); err == nil || !strings.Contains(err.Error(), "100 times") {
		t.Errorf("a bomb: %v", err)
	}
	entries, err := os.ReadDir(o.Unpack)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	o.Unpack = filepath.Join(dir, "train-0.tar.gz")
	if _, err := OpenWith(filepath.Join(dir, "train-{0..2}.tar.gz"), o); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("no folder: %v", err)
	}
	// What was unpacked and is taken away or cut while it is used is the samples' fault.
	o.Unpack = t.TempDir()
	if set, err = OpenWith(filepath.Join(dir, "train-0.tar.gz"), o); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(o.Unpack, "*.unpacked"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Truncate(files[0], 600); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Train.Decode(1, NewDecoder()); err == nil || !strings.Contains(err.Error(), "train-0.tar.gz") || !strings.Contains(err.Error(), "changed") {
		t.Errorf("cut while it is used: %v", err)
	}
	if set, err = OpenWith(filepath.Join(dir, "train-0.tar.gz"), o); err != nil || !slices.Equal(widths(t, set.Train), []int{1, 2}) {
		t.Errorf("opened again: %v", err)
	}
}

// A pipe that is called a shard is not waited for.
func TestPipesAreNoShards(t *testing.T) {
	for _, name := range []string{"train.tar", "train.tar.gz", "train.parquet"} {
		path := filepath.Join(t.TempDir(), name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := Open(path); done <- err }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "no plain file") || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s is waited for", name)
		}
	}
}
