package data

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadClasses(t *testing.T) {
	list, err := ReadClasses(ImageNet100)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 100 || !slices.IsSorted(list) || list[0] != "n01558993" || list[99] != "n13040303" && list[99] != "n13037406" {
		t.Errorf("%d ids, %s to %s", len(list), list[0], list[len(list)-1])
	}
	// sort imagenet100.txt | sha256sum
	if got := list.Digest(); got != imageNet100Digest {
		t.Errorf("digest %s, want %s", got, imageNet100Digest)
	}
	file := filepath.Join(t.TempDir(), "list")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# mine\nn02000000 a bird, of sorts\r\nmy own class\n\nn01000000: fish\n")
	list, err = ReadClasses(file)
	if want := (ClassList{"my own class", "n01000000", "n02000000"}); err != nil || !slices.Equal(list, want) {
		t.Errorf("%q, %v; want %q", list, err, want)
	}
	again, err := ReadClasses(list.String())
	if err != nil || again.Digest() != list.Digest() {
		t.Errorf("read back %q, %v", again, err)
	}
	for text, want := range map[string]string{"a\nb\na\n": "a is there twice", "a\n": "1 class: at least 2", "a,b\nc\n": "is no id"} {
		write(text)
		if _, err := ReadClasses(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"imagenet99", t.TempDir(), "a,,b"} {
		if _, err := ReadClasses(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

const imageNet100Digest = "5ee5db69d488bb799a286d8e181801c3d02798776c1ce9203e5450f64e086e07"

func TestSelect(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"train/c/1.png", "train/a/1.png", "train/a/2.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "val/c/1.png", "val/c/2.png"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	set, err := whole.Select(ClassList{"a", "c"})
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.Len() != 3 || set.Test.Len() != 3 || set.Info.Train != 3 || set.Info.Classes != 2 || set.Train.Classes() != 2 || set.Test.Classes() != 2 {
		t.Errorf("%d and %d samples, %+v", set.Train.Len(), set.Test.Len(), set.Info)
	}
	d := NewDecoder()
	for _, split := range []Dataset{set.Train, set.Test} {
		for i := range split.Len() {
			class := className(split, int(split.Label(i)))
			content, err := split.(Encoded).Content(i, d)
			if err != nil || !strings.Contains(string(content), "/"+class+"/") || !strings.HasSuffix(split.Path(i), split.(Encoded).Name(i)) {
				t.Errorf("%s is of class %s: %s, %v", split.Path(i), class, content, err)
			}
		}
	}
	other, err := whole.Select(ClassList{"a", "b"})
	if err != nil || other.Info.Digest == set.Info.Digest || set.Info.Digest == whole.Info.Digest || set.Info.ClassList == "" {
		t.Errorf("digests do not tell lists apart: %+v, %+v, %v", set.Info, other.Info, err)
	}
	if whole.Train.Len() != 4 || strings.Contains(whole.Announce, "SHA") || !strings.Contains(set.Announce, set.Info.ClassList) {
		t.Errorf("%s\n%s", whole.Announce, set.Announce)
	}
	if _, err := whole.Select(ClassList{"a", "x", "y"}); err == nil || !strings.Contains(err.Error(), "2 of 3 ids are no class of the data set, such as x, y; it has 3 classes, such as a") {
		t.Errorf("unknown ids: %v", err)
	}
}
