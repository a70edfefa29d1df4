package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docs/log.md says what the types say.
func TestPageIsCurrent(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	want, err := page(root)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join(root, "docs", "log.md"))
	if err != nil || string(have) != want {
		t.Errorf("docs/log.md is not what the types say (%v): go generate ./coordinator/event", err)
	}
	for _, part := range []string{"### replica lost", "Warning. Reported when", "### knn", "| `knn_top1_embedding` | number |", "| `pos_sim` | number |", "| `majority` | integer |"} {
		if !strings.Contains(want, part) {
			t.Errorf("%q is not in the page", part)
		}
	}
}

// What the page cannot be made of is an error that says where.
func TestFaultyTypes(t *testing.T) {
	const methods = "func (T) EventName() string { return \"t\" }\n"
	for name, c := range map[string]struct{ code, want string }{
		"no comment": {"type T struct{ Info }\n" + methods, "comment must begin"},
		"no tag":     {"// T is reported never.\ntype T struct { Info; Step int64 }\n" + methods, "T.Step has no JSON tag"},
		"no meaning": {"// T is reported never.\ntype T struct { Info; Step int64 `json:\"step\"` }\n" + methods, "T.Step has no comment"},
		"odd type":   {"// T is reported never.\ntype T struct { Info; F func() `json:\"f\"` }\n" + methods, "in words"},
		"no struct":  {"type T int\n" + methods, "is no struct"},
		"no level":   {"// T is reported never.\ntype T struct{}\n" + methods, "embed a level"},
	} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "t.go"), []byte("package t\n\n"+c.code), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := readSources(root, []string{"."})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.events(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
