package mochi_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every event that says that something is wrong stands in docs/errors.md, by its
// name, with what to do.
func TestWarningsAreExplained(t *testing.T) {
	explained := readDoc(t, "docs/errors.md")
	events := regexp.MustCompile("(?m)^### (.+)\n\n(?:Warning|Error)\\. ").FindAllStringSubmatch(readDoc(t, "docs/log.md"), -1)
	if len(events) < 20 {
		t.Fatalf("docs/log.md has %d warnings: has its form changed?", len(events))
	}
	for _, e := range events {
		if !strings.Contains(explained, "`"+e[1]+"`") {
			t.Errorf("docs/errors.md does not say what to do about the event `%s`", e[1])
		}
	}
}

// The last part of docs/errors.md names a test for each kind of trouble: it must
// be there, in the folder that is named.
func TestErrorsNameTheirTests(t *testing.T) {
	_, table, found := strings.Cut(readDoc(t, "docs/errors.md"), "\n## How it is tested\n")
	if !found {
		t.Fatal("docs/errors.md has no part about tests")
	}
	row := regexp.MustCompile("(?m)^\\| .* \\| `([^`]+)`: (.+) \\|$")
	rows := row.FindAllStringSubmatch(table, -1)
	if len(rows) < 14 {
		t.Errorf("%d kinds of trouble have a test", len(rows))
	}
	if n := strings.Count(table, "\n| ") - 1; n != len(rows) {
		t.Errorf("%d rows, %d of them name a test as the others do", n, len(rows))
	}
	for _, r := range rows {
		tests := testsIn(t, r[1])
		for name := range strings.SplitSeq(r[2], "; ") {
			if !strings.Contains(tests, `"`+strings.Trim(name, `"`)+`"`) && !strings.Contains(tests, "func "+name+"(t ") {
				t.Errorf("%s has no test %s", r[1], name)
			}
		}
	}
}

// testsIn is the text of all tests of a folder.
func testsIn(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func readDoc(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
