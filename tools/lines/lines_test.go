package lines_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"mochi/tools/lines"
)

// Segments come first, the oldest before the others, and nothing else does.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log.jsonl")
	if _, err := lines.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	for name, text := range map[string]string{
		"log.jsonl": "4\n", "log.000002.jsonl": "2\n", "log.000010.jsonl": "3\n", "log.000001.jsonl": "1\n",
		"log.1.jsonl": "no\n", "samples.000001.jsonl": "no\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := lines.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err != nil || string(text) != "1\n2\n3\n4\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
