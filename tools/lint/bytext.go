package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// byText finds errors that are told apart by their text, in all Go files of the
// repository, whatever their build tags. (Sizes and imports are the house's own
// tests: arch_test.go and arch_size_test.go.)
func byText() ([]string, error) {
	names, err := tracked("*.go")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		found = append(found, textsIn(fset, name, f)...)
	}
	slices.Sort(found)
	return found, nil
}

// textsIn is byText of one file. A test may look at what a person will read.
func textsIn(fset *token.FileSet, name string, f *ast.File) []string {
	if strings.HasSuffix(name, "_test.go") || imports(f, "testing") {
		return nil
	}
	var found []string
	fault := func(at token.Pos) {
		found = append(found, fmt.Sprintf("%s:%d: an error is told by its text: use errors.Is or errors.As", name, fset.Position(at).Line))
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr: // strings.Contains(err.Error(), …), and regular expressions
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && looksAtText(s) && slices.ContainsFunc(n.Args, isErrorText) {
				fault(n.Pos())
			}
		case *ast.BinaryExpr: // err.Error() == "…"
			if (n.Op == token.EQL || n.Op == token.NEQ) && (isErrorText(n.X) || isErrorText(n.Y)) {
				fault(n.Pos())
			}
		}
		return true
	})
	return found
}

// looksAtText is about a function of package strings that answers a question,
// or a method of a regular expression that does.
func looksAtText(s *ast.SelectorExpr) bool {
	from, ok := s.X.(*ast.Ident)
	if ok && from.Name == "strings" {
		return slices.Contains([]string{"Contains", "ContainsAny", "Count", "CutPrefix", "CutSuffix", "EqualFold", "HasPrefix", "HasSuffix", "Index"}, s.Sel.Name)
	}
	return s.Sel.Name == "MatchString" || s.Sel.Name == "FindStringSubmatch"
}

// isErrorText is about X.Error(), without arguments.
func isErrorText(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) > 0 {
		return false
	}
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Error"
}

func imports(f *ast.File, path string) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(path) })
}

// tracked lists files that git knows or would add, and that are there.
func tracked(pattern string) ([]string, error) {
	out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", pattern).Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var names []string
	for _, name := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if _, err := os.Stat(name); err == nil {
			names = append(names, name)
		}
	}
	return names, nil
}
