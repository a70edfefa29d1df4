package shards

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func packAll(t *testing.T, pattern string, size int64, n int) []string {
	t.Helper()
	p, err := NewPacker(pattern, size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abandon()
	for i := range n {
		item := Item{Content: bytes.Repeat([]byte{byte(i)}, 100*i), Extension: "jpg", Class: int32(i % 3), ClassName: fmt.Sprint("c", i%3), File: fmt.Sprintf("c/%d.jpg", i)}
		if i == 4 {
			item.Class, item.ClassName = -1, ""
		}
		if err := p.Add(item); err != nil {
			t.Fatal(err)
		}
	}
	names, err := p.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// What was packed is found again, in its order; the bytes depend on the items
// and the size only.
func TestPackAndScan(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	names := packAll(t, filepath.Join(a, "x-{00..}.tar"), 5000, 20)
	again := packAll(t, filepath.Join(b, "x-{00..}.tar"), 5000, 20)
	if len(names) < 3 || names[0] != filepath.Join(a, "x-00.tar") {
		t.Fatalf("shards %v", names)
	}
	n := 0
	for i, name := range names {
		one, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(again[i])
		if err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s differs from the same shard made elsewhere (%v)", name, err)
		}
		s, err := ScanFile(name)
		if err != nil || s.Fault != nil || len(s.Left) > 0 || s.Read+len(s.Samples) != s.Members {
			t.Fatalf("%s: %v, %+v", name, err, s)
		}
		for _, sample := range s.Samples {
			if got := one[sample.Offset:][:sample.Size]; len(got) != 100*n || n > 0 && got[0] != byte(n) {
				t.Errorf("sample %d is of %d bytes", n, len(got))
			}
			if want := fmt.Sprint(n % 3); n != 4 && (sample.Class != want || s.Names[want] != "c"+want) || n == 4 && sample.Class != "" {
				t.Errorf("sample %d is of class %q, names %v", n, sample.Class, s.Names)
			}
			n++
		}
	}
	if n != 20 {
		t.Errorf("%d samples", n)
	}
}

// More shards than the pattern has digits for: all names get wider, and the
// same pattern finds them.
func TestPackWidensTheNames(t *testing.T) {
	pattern := filepath.Join(t.TempDir(), "x-{0..}.tar")
	names := packAll(t, pattern, 1, 11)
	if filepath.Base(names[0]) != "x-00.tar" || filepath.Base(names[10]) != "x-10.tar" {
		t.Fatalf("shards %v", names)
	}
	found, err := Expand(pattern)
	if err != nil || !slices.Equal(found, names) {
		t.Errorf("found %v, %v", found, err)
	}
}

// Until all is written, nothing has its name; what is there is never mixed
// with new shards.
func TestPackIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	pattern := filepath.Join(dir, "x-{000..}.tar")
	p, err := NewPacker(pattern, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := p.Add(Item{Content: []byte("x"), Extension: "jpg", Class: -1}); err != nil {
			t.Fatal(err)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.tar")); len(found) > 0 {
		t.Errorf("%v before the end", found)
	}
	p.Abandon()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	packAll(t, pattern, 1, 2)
	for pattern, want := range map[string]string{
		pattern:                                "remove the old shards",
		filepath.Join(dir, "y.tar"):            "not of the form",
		filepath.Join(dir, "y-{0..5}.tar"):     "not of the form",
		filepath.Join(dir, "no/y-{000..}.tar"): "no such folder",
	} {
		if _, err := NewPacker(pattern, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", pattern, err, want)
		}
	}
}

func TestBeside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"in-val-00.tar", "in-val-01.tar", "in-value.txt", "in-train-00.tar"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{filepath.Join(dir, "in-val-00.tar"), filepath.Join(dir, "in-val-01.tar")}
	for _, pattern := range []string{"in-train-{000..146}.tar", "in-train-*.tar", "in-train-00.tar"} {
		if got := Beside(filepath.Join(dir, pattern), "val"); !slices.Equal(got, want) {
			t.Errorf("%s: %v", pattern, got)
		}
	}
	if got := Beside(filepath.Join(dir, "in-{0..3}.tar"), "val"); len(got) > 0 {
		t.Errorf("without train in the name: %v", got)
	}
}
