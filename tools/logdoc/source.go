package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// source is the types of some folders, and what they embed.
type source struct {
	root    string
	folders map[string]*folder // by path from the root
}

// folder is one package, as far as it is of interest.
type folder struct {
	types   map[string]*structType
	names   map[string]string // of events, by type
	ordered []string          // types with a name, as they stand in the files
}

type structType struct {
	doc     string
	fields  *ast.FieldList
	imports map[string]string // of its file: the folder by package name
}

// eventType is one type of event, and field one of a line's fields.
type (
	eventType struct {
		name, level, doc string
		fields           []field
	}
	field struct {
		name, kind, meaning string
		optional            bool
	}
)

const module = "mochi/"

// readSources reads the Go files, without tests, of all folders below some.
func readSources(root string, below []string) (*source, error) {
	s := &source{root: root, folders: map[string]*folder{}}
	for _, top := range below {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err == nil {
				_, err = s.folder(filepath.ToSlash(name))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// folder reads a folder once.
func (s *source) folder(name string) (*folder, error) {
	if f := s.folders[name]; f != nil {
		return f, nil
	}
	f := &folder{types: map[string]*structType{}, names: map[string]string{}}
	s.folders[name] = f
	files, err := filepath.Glob(filepath.Join(s.root, name, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		f.read(parsed)
	}
	return f, nil
}

// read takes the struct types of a file, and the method that makes events of
// them.
func (f *folder) read(file *ast.File) {
	imports := map[string]string{}
	for _, i := range file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		if inside, ok := strings.CutPrefix(path, module); ok {
			imports[inside[strings.LastIndex(inside, "/")+1:]] = inside
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if st, ok := t.Type.(*ast.StructType); ok {
					f.types[t.Name.Name] = &structType{words(d.Doc, t.Doc), st.Fields, imports}
				}
			}
		case *ast.FuncDecl:
			of, value := result(d)
			if text, ok := value.(*ast.BasicLit); ok && d.Name.Name == "EventName" {
				f.names[of], _ = strconv.Unquote(text.Value)
				f.ordered = append(f.ordered, of)
			}
		}
	}
}

// result is the receiver's type and the value of a method that does nothing but
// return one.
func result(d *ast.FuncDecl) (of string, value ast.Expr) {
	if d.Recv == nil || d.Body == nil || len(d.Body.List) != 1 {
		return "", nil
	}
	receiver, ok := d.Recv.List[0].Type.(*ast.Ident)
	ret, returns := d.Body.List[0].(*ast.ReturnStmt)
	if !ok || !returns || len(ret.Results) != 1 {
		return "", nil
	}
	return receiver.Name, ret.Results[0]
}

// events are all types that have a name.
func (s *source) events() ([]eventType, error) {
	var list []eventType
	for _, path := range sorted(s.folders) {
		f := s.folders[path]
		for _, name := range f.ordered {
			t := f.types[name]
			if t == nil {
				return nil, fmt.Errorf("%s: %s has the name of an event and is no struct", path, name)
			}
			e := eventType{name: f.names[name], level: t.level()}
			doc, ok := strings.CutPrefix(t.doc, name+" is ")
			if !ok || e.level == "" {
				return nil, fmt.Errorf("%s: %s: its comment must begin with %q, and it must embed a level", path, name, name+" is ")
			}
			e.doc = strings.ToUpper(doc[:1]) + doc[1:]
			fields, err := s.fields(path, name)
			if err != nil {
				return nil, err
			}
			e.fields = fields
			list = append(list, e)
		}
	}
	return list, nil
}

// levels are the types that an event embeds one of.
var levels = []string{"Info", "Warning", "Error"}

// level is the one that a struct embeds, "" when none.
func (t *structType) level() string {
	for _, f := range t.fields.List {
		name := ""
		switch e := f.Type.(type) {
		case *ast.Ident:
			name = e.Name
		case *ast.SelectorExpr:
			name = e.Sel.Name
		}
		if len(f.Names) == 0 && slices.Contains(levels, name) {
			return name
		}
	}
	return ""
}

// fields are those of a struct, with what it embeds, by their JSON tags.
func (s *source) fields(path, name string) ([]field, error) {
	f, err := s.folder(path)
	if err != nil {
		return nil, err
	}
	t := f.types[name]
	if t == nil {
		return nil, fmt.Errorf("no struct %s in %s", name, path)
	}
	var list []field
	for _, sf := range t.fields.List {
		if len(sf.Names) == 0 {
			at, of := path, ""
			switch e := sf.Type.(type) {
			case *ast.Ident:
				of = e.Name
			case *ast.SelectorExpr:
				at, of = t.imports[e.X.(*ast.Ident).Name], e.Sel.Name
			}
			if slices.Contains(levels, of) {
				continue
			}
			embedded, err := s.fields(at, of)
			if err != nil {
				return nil, fmt.Errorf("embedded in %s: %w", name, err)
			}
			list = append(list, embedded...)
			continue
		}
		if sf.Tag == nil {
			return nil, fmt.Errorf("%s: %s.%s has no JSON tag", path, name, sf.Names[0])
		}
		tag, _ := strconv.Unquote(sf.Tag.Value)
		json, options, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		kind := kindOf(sf.Type)
		if kind == "" {
			return nil, fmt.Errorf("%s: %s.%s: what is its type in words?", path, name, sf.Names[0])
		}
		meaning := words(sf.Doc, sf.Comment)
		if meaning == "" {
			return nil, fmt.Errorf("%s: %s.%s has no comment", path, name, sf.Names[0])
		}
		meaning = strings.TrimPrefix(meaning, sf.Names[0].Name+" is ")
		list = append(list, field{json, kind, meaning, options == "omitempty"})
	}
	return list, nil
}

// kindOf is a Go type in words, "" when there are none yet.
func kindOf(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return map[string]string{
			"string": "text", "int": "integer", "int64": "integer", "uint64": "integer", "float64": "number", "bool": "true or false",
		}[t.Name]
	case *ast.ArrayType:
		return "list of " + kindOf(t.Elt)
	case *ast.MapType:
		return "object, " + kindOf(t.Value) + " by name"
	}
	return ""
}

// words are comments as one line.
func words(comments ...*ast.CommentGroup) string {
	var text []string
	for _, c := range comments {
		if c != nil {
			text = append(text, strings.Fields(c.Text())...)
		}
	}
	return strings.Join(text, " ")
}

func sorted(m map[string]*folder) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
