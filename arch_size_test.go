package mochi_test

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The sizes of the house, tests aside.
const (
	mostLines      = 500 // of a file
	mostParameters = 6   // of a function
)

// wideFolders are where functions may have more parameters: kernels, and
// wrappers of foreign calls, whose parameters are those of what they call. So may
// functions without a body, which are in assembly, and files that call C.
var wideFolders = []string{
	"allreduce/codec",
	"model/engine/cpu",
	"model/engine/cuda/driver",
	"model/engine/cuda/emulator",
	"model/engine/cuda/kernel",
	"model/engine/cuda/library",
}

// builds are the sets of tags with which files are compiled.
var builds = [][]string{
	{},
	{"cgo", "onednn", "turbojpeg", "libdeflate", "simd"},
	{"cgo", "onednn", "turbojpeg", "libdeflate", "simd", "testhooks"},
	{"cgo", "gpu"},
}

// source is what the rules of size look at: one Go file that is no test.
type source struct {
	path  string // relative to the repository root
	lines int
	file  *ast.File
	in    []bool // which of builds compile it
}

// oversized lists every file, function and package that breaks a rule.
func oversized(sources []source) []string {
	var found []string
	fault := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	folders := map[string][]source{}
	for _, s := range sources {
		dir := path.Dir(s.path)
		folders[dir] = append(folders[dir], s)
		if s.lines > mostLines {
			fault("%s: %d lines, at most %d", s.path, s.lines, mostLines)
		}
		callsC := slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"C"` })
		if callsC || slices.Contains(wideFolders, dir) {
			continue
		}
		for name, n := range parameters(s.file) {
			if n > mostParameters {
				fault("%s: %s has %d parameters, at most %d", s.path, name, n, mostParameters)
			}
		}
	}
	for dir, files := range folders {
		for i, tags := range builds {
			compiled := slices.DeleteFunc(slices.Clone(files), func(s source) bool { return !s.in[i] })
			if len(compiled) > 0 && !slices.ContainsFunc(compiled, func(s source) bool { return s.file.Doc.Text() != "" }) {
				fault("%s: no package comment in a build with tags %v", dir, tags)
			}
		}
	}
	slices.Sort(found)
	return found
}

// parameters counts those of every function, method and function type's
// declaration in a file, by name.
func parameters(f *ast.File) map[string]int {
	counts := map[string]int{}
	count := func(name string, t *ast.FuncType) {
		n := 0
		for _, field := range t.Params.List {
			n += max(1, len(field.Names))
		}
		counts[name] = max(counts[name], n)
	}
	inside := ""
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			inside = n.Name.Name
			if n.Body != nil {
				count(inside, n.Type)
			}
		case *ast.FuncLit:
			count(inside, n.Type)
		case *ast.InterfaceType:
			for _, m := range n.Methods.List {
				if t, ok := m.Type.(*ast.FuncType); ok && len(m.Names) > 0 {
					count(m.Names[0].Name, t)
				}
			}
		}
		return true
	})
	return counts
}

func TestSizes(t *testing.T) {
	var sources []source
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "runs") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		s := source{path: filepath.ToSlash(file)}
		set := token.NewFileSet()
		if s.file, err = parser.ParseFile(set, file, nil, parser.ParseComments); err != nil {
			return err
		}
		s.lines = set.File(s.file.Pos()).LineCount() - 1
		for _, tags := range builds {
			context := build.Default
			context.GOOS, context.GOARCH, context.BuildTags = "linux", "amd64", tags
			context.CgoEnabled = slices.Contains(tags, "cgo")
			in, err := context.MatchFile(filepath.Dir(file), name)
			if err != nil {
				return err
			}
			s.in = append(s.in, in)
		}
		sources = append(sources, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 100 {
		t.Fatalf("only %d files were found", len(sources))
	}
	for _, fault := range oversized(sources) {
		t.Error(fault)
	}
}

// TestSizesCanFail gives every rule something to find.
func TestSizesCanFail(t *testing.T) {
	make := func(path, text string, lines int, in ...bool) source {
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for len(in) < len(builds) {
			in = append(in, true)
		}
		return source{path, lines, f, in}
	}
	const doc = "// Package x is.\npackage x\n"
	if found := oversized([]source{
		make("x/doc.go", doc, 3),
		make("x/x.go", "package x\nfunc f(a, b, c int, d, e, f string) {}", 500),
		make("model/engine/cpu/wide.go", doc+"func f(a, b, c, d, e, f, g int) {}", 3),
		make("y/y.go", doc+"func f(a, b, c, d, e, f, g int)", 3),
		make("z/z.go", doc+"import \"C\"\nfunc f(a, b, c, d, e, f, g int) {}", 3),
	}); len(found) > 0 {
		t.Errorf("nothing is too large: %q", found)
	}
	for name, bad := range map[string][]source{
		"a long file":        {make("x/x.go", doc, 501)},
		"a wide function":    {make("x/x.go", doc+"func f(a, b, c, d, e, f, g int) {}", 3)},
		"a wide method":      {make("x/x.go", doc+"func (t T) f(a, b, c, d, e, f, g int) {}", 3)},
		"a wide interface":   {make("x/x.go", doc+"type t interface{ f(a, b, c, d, e, f, g int) }", 3)},
		"a wide closure":     {make("x/x.go", doc+"func f() { _ = func(a, b, c, d, e, f, g int) {} }", 3)},
		"no comment":         {make("x/x.go", "package x\n", 3, true, false, false, false)},
		"none in one build":  {make("x/doc.go", doc, 3, true, true, true, false), make("x/x.go", "package x\n", 3)},
		"a constraint alone": {make("x/x.go", "//go:build gpu\n\npackage x\n", 3, false, false, false, true)},
	} {
		if found := oversized(bad); len(found) != 1 {
			t.Errorf("%s: found %q, want exactly one fault", name, found)
		}
	}
}
