package data

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/replica/data/naming"
)

// openAll opens paths, several as one data set, and counts all files.
func openAll(t *testing.T, paths ...string) *Set {
	t.Helper()
	o := DefaultOptions()
	o.CountAll = true
	set, err := OpenAll(paths, o)
	if err != nil {
		t.Fatal(err)
	}
	checkSum(t, set)
	return set
}

// checkSum checks that the counts of a set add up.
func checkSum(t *testing.T, set *Set) {
	t.Helper()
	a := set.Account
	left := 0
	for _, l := range a.Left {
		left += l.Files
	}
	if a.Found != a.Train+a.Test+a.Read+a.Faults+left {
		t.Errorf("counts do not add up: %s", a.Sum())
	}
}

// leftFor is how many files were left out for a reason.
func leftFor(set *Set, why Reason) int {
	for _, l := range set.Account.Left {
		if l.Reason == why {
			return l.Files
		}
	}
	return 0
}

// A list of a folder's images is that folder: the same samples, in its order, of the
// same classes, with the same pixels.
func TestListIsItsFolder(t *testing.T) {
	dir := t.TempDir()
	var csv, jsonl bytes.Buffer
	csv.WriteString("label,path,split\n")
	n := 0
	for _, split := range []string{"val", "train"} {
		for _, class := range []string{"dog", "cat", "Café, black"} {
			for i := range 3 {
				n++
				name := fmt.Sprintf("%s/%s/%d.png", split, class, 9-i)
				write(t, filepath.Join(dir, name), drawing(t, n))
				fmt.Fprintf(&csv, "%q,%q,%s\n", class, name, split)
				fmt.Fprintf(&jsonl, "{\"label\": %q, \"path\": %q, \"split\": %q}\n", class, filepath.Join(dir, name), split)
			}
		}
	}
	folder, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"all.csv": csv.Bytes(), "all.jsonl": jsonl.Bytes()} {
		path := filepath.Join(dir, name)
		write(t, path, content)
		set := openAll(t, path)
		if set.Kind != "list" || set.Info.JPEG == "" {
			t.Errorf("%s: %+v", name, set.Info)
		}
		for i, pair := range [][2]Dataset{{set.Train, folder.Train}, {set.Test, folder.Test}} {
			got, want := pair[0], pair[1]
			if !slices.Equal(widths(t, got), widths(t, want)) || !slices.Equal(labelsOf(got), labelsOf(want)) || got.Classes() != want.Classes() || className(got, 0) != className(want, 0) {
				t.Errorf("%s, split %d: %v of %v, want %v of %v", name, i, widths(t, got), labelsOf(got), widths(t, want), labelsOf(want))
			}
		}
	}
}

// What a list names and what cannot be used is counted, each for its reason.
func TestListLeavesOut(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "list")
	for i, name := range []string{"a.png", "b.png", "Caf\u00e9.png", "sub/c.png", "extra.png", ".hidden.png", "a_mask.png"} {
		write(t, filepath.Join(dir, name), drawing(t, i+1))
	}
	write(t, filepath.Join(base, "outside.png"), drawing(t, 99))
	write(t, filepath.Join(dir, "notes.txt"), []byte("hello"))
	if err := os.Symlink("../outside.png", filepath.Join(dir, "link.png")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "list.csv")
	write(t, path, []byte(strings.Join([]string{"path,label",
		"a.png,10", "./sub/../b.png,9", filepath.Join(dir, "a.png") + ",10", "Cafe\u0301.png,9.0", `sub\c.png,010`, ".hidden.png,", "a_mask.png,-1", "link.png,9",
		"a.png,9", "../outside.png,9", filepath.Join(base, "outside.png") + ",9", `..\outside.png,9`, "/etc/hostname,9", "sub,9", "gone.png,9", "a.png/x.png,9", "nul\x00.png,9", strings.Repeat("x", 5000) + ",9",
		"notes.txt,9", "too,many,fields", "\"broken,9"}, "\r\n")))
	set := openAll(t, path)
	if got := widths(t, set.Train); !slices.Equal(got, []int{6, 7, 3, 2, 99, 1, 4}) || !slices.Equal(labelsOf(set.Train), []int32{-1, -1, 0, 0, 0, 1, 1}) {
		t.Errorf("images %v, labels %v", got, labelsOf(set.Train))
	}
	if className(set.Train, 0) != "9" || className(set.Train, 1) != "10" || set.Test != nil {
		t.Errorf("classes %s, %s", className(set.Train, 0), className(set.Train, 1))
	}
	for why, want := range map[Reason]int{naming.Doubled: 1, naming.Contrary: 1, naming.Outside: 4, naming.Special: 1, naming.Missing: 4, naming.Text: 1, naming.BadLine: 2, naming.Unlisted: 1} {
		if got := leftFor(set, why); got != want {
			t.Errorf("%d %s, want %d", got, why, want)
		}
	}
	if set.Account.Found != 21+1+1 || set.Account.Unruled() != 0 { // lines, the list, extra.png
		t.Error(set.Account.Sum())
	}
	for _, content := range []string{"path\ngone.png\n", "path,split\na.png,test\n"} {
		write(t, path, []byte(content))
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "gone.png") && !strings.Contains(err.Error(), "training split") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// However the place of a list is written, it is the same list.
func TestListByAnyPath(t *testing.T) {
	dir := folderOf(t, "x/1.png", "y/2.png", "3.png")
	write(t, filepath.Join(dir, "l.csv"), []byte("path,label\nx/1.png,a\ny/2.png,b\n"))
	t.Chdir(filepath.Join(dir, "x"))
	want := openAll(t, filepath.Join(dir, "l.csv"))
	for _, path := range []string{"../l.csv", ".././l.csv", "../y/../l.csv", "..//l.csv"} {
		if set := openAll(t, path); set.Info != want.Info || set.Account.Sum() != want.Account.Sum() || set.Account.Found != 4 {
			t.Errorf("%s: %s, want %s", path, set.Account.Sum(), want.Account.Sum())
		}
	}
}

// The test split of a list without a column for it is the list beside it whose name says
// so; classes are those of the training list.
func TestListsBesideEachOther(t *testing.T) {
	dir := folderOf(t, "x/1.png", "x/2.png", "x/3.png", "x/4.png")
	write(t, filepath.Join(dir, "my-Train-2.csv"), []byte("path,label\nx/1.png,dog\nx/2.png,cat\n"))
	write(t, filepath.Join(dir, "my-test-2.csv"), []byte("path,label\nx/4.png,cat\n"))
	write(t, filepath.Join(dir, "my-val-2.csv"), []byte("path,label\nx/3.png,cat\nx/4.png,cow\n"))
	write(t, filepath.Join(dir, "my-val-3.csv"), []byte("broken"))
	set := openAll(t, filepath.Join(dir, "my-Train-2.csv"))
	if set.Test == nil || !slices.Equal(widths(t, set.Test), []int{7, 8}) || !slices.Equal(labelsOf(set.Test), []int32{0, -1}) || !strings.Contains(set.Announce, "test split: "+filepath.Join(dir, "my-val-2.csv")) || !strings.Contains(set.Announce, "class cow") {
		t.Errorf("%s", set.Announce)
	}
	one, err := Open(filepath.Join(dir, "my-test-2.csv"))
	if err != nil || one.Test != nil || one.Train.Len() != 1 {
		t.Errorf("a list of tests alone: %v", err)
	}
	write(t, filepath.Join(dir, "my-val-2.csv"), []byte("path,label\nx/3.png,cat\nx/4.png,dog\n"))
	other := openAll(t, filepath.Join(dir, "my-Train-2.csv"))
	if other.Info != set.Info {
		t.Error("the test split is part of the training data's identity")
	}
	write(t, filepath.Join(dir, "my-Train-2.csv"), []byte("path,label\nx/1.png,cat\nx/2.png,dog\n"))
	if other = openAll(t, filepath.Join(dir, "my-Train-2.csv")); other.Info.Digest == set.Info.Digest {
		t.Error("other labels, the same digest")
	}
}
