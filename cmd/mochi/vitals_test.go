package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a process has is in the file, line by line; a file that cannot be written
// is said and ends nothing.
func TestVitals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vitals")
	var errs bytes.Buffer
	for range 2 { // a second process goes on with the file
		watchVitals(path, time.Hour, &errs)()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), text)
	}
	for _, line := range lines {
		var v vitals
		if err := json.Unmarshal(line, &v); err != nil || v.PID != os.Getpid() || v.Goroutines < 2 || v.Time.IsZero() {
			t.Errorf("%s: %v", line, err)
		}
	}
	if watchVitals("", time.Hour, &errs)(); errs.Len() > 0 {
		t.Errorf("%s", &errs)
	}
	watchVitals(t.TempDir(), time.Hour, &errs)()
	if !bytes.Contains(errs.Bytes(), []byte("MOCHI_VITALS")) {
		t.Errorf("a folder: %q", &errs)
	}
}
