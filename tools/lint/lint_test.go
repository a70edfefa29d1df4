package main

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// What tells errors apart by text is found, and only that.
func TestErrorsByText(t *testing.T) {
	const fault = "a.go:2: an error is told by its text: use errors.Is or errors.As"
	for _, c := range []struct{ name, src, want string }{
		{"a.go", `var x = strings.Contains(err.Error(), "x")`, fault},
		{"a.go", `var x = err.Error() == "x"`, fault},
		{"a.go", `var x = pattern.MatchString(err.Error())`, fault},
		{"a_test.go", `var x = strings.Contains(err.Error(), "x")`, ""},
		{"a.go", `import "testing"; var x = err.Error() == "x"`, ""},
		{"a.go", `var x = strings.ToUpper(err.Error())`, ""},
		{"a.go", `var x = errors.Is(err, os.ErrNotExist)`, ""},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, c.name, "package p\n"+c.src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(textsIn(fset, c.name, f), "\n"); got != c.want {
			t.Errorf("%s: %s\ngot  %q\nwant %q", c.name, c.src, got, c.want)
		}
	}
}

func TestBroken(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"README.md":    "# mochi\n## A step, in words\n```\n# not a heading\n```\n",
		"docs/gpu.md":  "# GPU\n",
		"docs/x.go":    "package x\n",
		"docs/img.svg": "<svg/>",
	} {
		if err := os.MkdirAll("docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ from, link, want string }{
		{"README.md", "docs/gpu.md", ""},
		{"README.md", "docs", ""},
		{"README.md", "#a-step-in-words", ""},
		{"README.md", "#not-a-heading", "no such heading"},
		{"README.md", "docs/none.md", "no such file"},
		{"docs/gpu.md", "../README.md#mochi", ""},
		{"docs/gpu.md", "../README.md#gpu", "no such heading"},
		{"docs/gpu.md", "README.md", "no such file"},
		{"docs/gpu.md", "x.go#L1", ""},
		{"docs/gpu.md", "https://example.org/none", ""},
	} {
		if got := broken(c.from, c.link); got != c.want {
			t.Errorf("%s: %s: %q, want %q", c.from, c.link, got, c.want)
		}
	}
}

func TestWithoutCalls(t *testing.T) {
	var c config
	c.Errcheck.ExcludeCalls = []string{"Close"}
	found := []string{"a.go:1:2:\tdefer f.Close()", "a.go:2:2:\tf.Sync()"}
	if got := c.withoutCalls(found); !slices.Equal(got, found[1:]) {
		t.Errorf("%q", got)
	}
}

// A file of a clone that is gone is looked up in this one.
func TestFindingsOfAnotherClone(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("a/b/c.go", []byte("package b\n\tf.Close()\n\tf.Sync()\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c config
	c.Errcheck.ExcludeCalls = []string{"Close"}
	got := c.withoutCalls([]string{"../gone/a/b/c.go:2:3:\t??", "../gone/a/b/c.go:3:3:\t??", "../gone/d.go:1:1:\t??"})
	if want := []string{"a/b/c.go:3:3:\tf.Sync()", "../gone/d.go:1:1:\t??"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
