package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
)

// house is the rules of this project that no linter knows. They hold for all
// Go files, whatever their build tags.
type house struct {
	MaxLines      int      `toml:"max_lines"`
	MaxParameters int      `toml:"max_parameters"`
	LongFiles     []string `toml:"long_files"`
	WideFolders   []string `toml:"wide_folders"` // and what lies in them
}

// check reads every Go file of the repository.
func (h house) check() ([]string, error) {
	names, err := tracked("*.go")
	if err != nil {
		return nil, err
	}
	var found []string
	commented := map[string]bool{} // by folder
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if test := strings.HasSuffix(name, "_test.go"); !test {
			commented[path.Dir(name)] = commented[path.Dir(name)] || f.Doc != nil
		}
		found = append(found, h.file(fset, name, f)...)
	}
	for folder, yes := range commented {
		if !yes {
			found = append(found, folder+": no file has a package comment")
		}
	}
	slices.Sort(found)
	return found, nil
}

// file checks one file: its length, the parameters of its functions, and that
// it tells errors apart by value.
func (h house) file(fset *token.FileSet, name string, f *ast.File) []string {
	var found []string
	fault := func(at token.Pos, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s:%d: ", name, fset.Position(at).Line)+fmt.Sprintf(format, args...))
	}
	test := strings.HasSuffix(name, "_test.go")
	texts := test || imports(f, "testing") // a test may look at what a person will read
	if lines := fset.File(f.FileStart).LineCount(); lines > h.MaxLines && !test && !slices.Contains(h.LongFiles, name) {
		fault(f.Package, "%d lines, more than %d", lines, h.MaxLines)
	}
	wide := slices.ContainsFunc(h.WideFolders, func(folder string) bool { return strings.HasPrefix(name, folder+"/") }) || imports(f, "C")
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if p := n.Type.Params.NumFields(); p > h.MaxParameters && !wide && n.Body != nil {
				fault(n.Pos(), "%s has %d parameters, more than %d", n.Name.Name, p, h.MaxParameters)
			}
		case *ast.FuncLit:
			// A fuzz test's parameters are its values.
			if p := n.Type.Params.NumFields(); p > h.MaxParameters && !wide && !test {
				fault(n.Pos(), "this function has %d parameters, more than %d", p, h.MaxParameters)
			}
		case *ast.CallExpr:
			// strings.Contains(err.Error(), …), and regular expressions.
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && !texts && looksAtText(s) && slices.ContainsFunc(n.Args, isErrorText) {
				fault(n.Pos(), "an error is told by its text: use errors.Is or errors.As")
			}
		case *ast.BinaryExpr: // err.Error() == "…"
			if !texts && (n.Op == token.EQL || n.Op == token.NEQ) && (isErrorText(n.X) || isErrorText(n.Y)) {
				fault(n.Pos(), "an error is told by its text: use errors.Is or errors.As")
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
