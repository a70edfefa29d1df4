package mochi_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decoders are the calls by which a package reads what others have written.
var decoders = regexp.MustCompile(`^(json\.(Unmarshal|NewDecoder)|protocol\.Decode|yaml\.(Unmarshal|NewDecoder)|tar\.NewReader|zip\.NewReader|gzip\.NewReader|zlib\.NewReader|flate\.NewReader|(png|jpeg)\.(Decode|DecodeConfig)|csv\.NewReader|gob\.NewDecoder|binary\.(Read|Decode|Uvarint|Varint|ReadUvarint|ReadVarint|(Little|Big)Endian\.Uint(16|32|64)))$`)

// unfuzzed are the packages that read something and have no fuzzer, each with the
// reason. Whoever adds a reader of files or messages adds its fuzzer, not a line here.
var unfuzzed = map[string]string{
	"allreduce/bench":           "reads the answers of its own processes",
	"allreduce/direct":          "the length before a frame, which is bounded; what a frame says, allreduce.FuzzFrames is about",
	"allreduce/natsring":        "where neighbours are, in JSON of three fields; the frames are allreduce's",
	"cmd/mochi/run":             "lines of the logs that it wrote itself; a line that is none is cut off",
	"coordinator/clustertest":   "serves tests",
	"coordinator/jetstream":     "the log of an earlier build, read once",
	"coordinator/natsbus":       "decodes messages, whose bounds coordinator.FuzzMessages and protocol.FuzzMessage are about, and answers of servers",
	"model/engine/cuda/library": "which libraries are there",
	"model/exchange/array":      "turns bytes of a checked number into numbers",
	"replica":                   "the length of a state that a member sends, which is bounded; the state is checkpoint's",
	"replica/queue":             "turns bytes of a known number into numbers",
}

// readers lists the packages, by folder, that have one of decoders in a file that is
// no test, with the call; fuzzed those that have a fuzz test.
func readersAndFuzzers(t *testing.T) (readers map[string]string, fuzzed map[string]bool) {
	readers, fuzzed = map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if name := d.Name(); err == nil && path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || path == "tools" || path == "runs") {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		isTest := strings.HasSuffix(path, "_test.go")
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				fuzzed[dir] = fuzzed[dir] || isTest && strings.HasPrefix(n.Name.Name, "Fuzz")
			case *ast.SelectorExpr:
				if call := chain(n); !isTest && decoders.MatchString(call) {
					readers[dir] = call
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return readers, fuzzed
}

// chain is a selector as it is written, if it is one of names.
func chain(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return chain(e.X) + "." + e.Sel.Name
	}
	return ""
}

// Every package that reads files or messages has a fuzzer, or a reason why not.
func TestReadersAreFuzzed(t *testing.T) {
	readers, fuzzed := readersAndFuzzers(t)
	if len(readers) < 15 || len(fuzzed) < 10 {
		t.Fatalf("%d packages read, %d have fuzzers: this test does not see them", len(readers), len(fuzzed))
	}
	for _, dir := range slices.Sorted(maps.Keys(readers)) {
		if _, excused := unfuzzed[dir]; !fuzzed[dir] && !excused {
			t.Errorf("%s reads with %s, and has no function Fuzz…: add one, with a corpus of small files in testdata/fuzz", dir, readers[dir])
		}
	}
	for dir := range unfuzzed {
		if readers[dir] == "" || fuzzed[dir] {
			t.Errorf("%s needs no excuse: it reads nothing, or has a fuzzer", dir)
		}
	}
}
