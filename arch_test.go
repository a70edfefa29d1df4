// Package mochi_test checks the plan of the house: which folder may import
// which. A folder's place in the plan is its name, so the tables below are
// all there is to know.
package mochi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "mochi"

// rooms says, for every room of the house, which other rooms it may use.
// A folder belongs to the room with the longest matching name.
var rooms = map[string][]string{
	"cmd":                         {"coordinator", "coordinator/event", "coordinator/gossip", "coordinator/jetstream", "coordinator/natsbus", "coordinator/protocol", "coordinator/protocol/config", "replica", "allreduce", "model", "model/network", "model/figures", "model/limits"},
	"coordinator":                 {"coordinator/copies", "coordinator/deal", "coordinator/event", "coordinator/history", "coordinator/patience", "coordinator/roster", "coordinator/round", "coordinator/protocol", "coordinator/protocol/config", "model/figures"},
	"coordinator/copies":          {"coordinator/event", "coordinator/place", "coordinator/roster", "coordinator/protocol", "coordinator/protocol/config"},
	"coordinator/deal":            {},
	"coordinator/event":           {},
	"coordinator/history":         {"coordinator/protocol", "coordinator/protocol/config"},
	"coordinator/patience":        {},
	"coordinator/place":           {},
	"coordinator/roster":          {"coordinator/protocol"},
	"coordinator/round":           {"coordinator/copies", "coordinator/roster", "coordinator/protocol", "coordinator/protocol/config", "model/figures"},
	"coordinator/gossip":          {"coordinator/protocol"},
	"coordinator/natsbus":         {"coordinator/protocol", "allreduce/natsserver"},
	"coordinator/jetstream":       {"coordinator/protocol", "coordinator/protocol/config", "coordinator"},
	"coordinator/protocol":        {"coordinator/protocol/config", "model/figures"},
	"coordinator/protocol/config": {"model/network", "model/limits"},
	"replica":                     {"coordinator/protocol", "coordinator/gossip", "coordinator/protocol/config", "allreduce", "model", "model/network", "model/figures"},
	"replica/replicatest/cluster": {"coordinator", "coordinator/event", "coordinator/protocol", "coordinator/protocol/config", "replica", "allreduce"},
	"allreduce":                   {"allreduce/natsserver"},
	"allreduce/natsserver":        {}, // a door of its own: the coordinator embeds a server too
	"model":                       {"model/figures", "model/limits", "model/network"},
	"model/figures":               {},
	"model/limits":                {},
	"model/network":               {},
	"tools":                       {"coordinator/protocol", "coordinator/protocol/config", "replica", "allreduce", "model", "model/network", "model/figures"},
	".":                           {}, // the repository root: this test only
}

// libraries says in which folders a dependency may be imported: those of the
// given names and what lies in them. "*" is everywhere. The longest matching
// prefix counts; a dependency without an entry has no place in the house yet.
var libraries = map[string][]string{
	"C":                               {"onednn", "cuda", "turbojpeg", "simd"},
	"github.com/nats-io":              {"natsbus", "natsring", "jetstream"},
	"github.com/nats-io/nats-server":  {"natsserver"},
	"github.com/hashicorp/memberlist": {"gossip"},
	"gorgonia.org":                    {"gorgonia"},
	"gorgonia.org/cu":                 {"cuda"},
	"go4.org/unsafe":                  {"gorgonia"},
	"github.com/chewxy/hm":            {"gorgonia"}, // in the types of gorgonia's operators
	"gonum.org/v1/gonum/graph":        {"gorgonia"},
	"github.com/cespare/xxhash/v2":    {"*"},
	"go.yaml.in/yaml/v3":              {"*"},
	"golang.org/x/sync":               {"*"},
	"golang.org/x/sys":                {"*"},
	"github.com/spf13":                {"cli"}, // cobra, pflag
	"golang.org/x/term":               {"cmd"},
}

// noFolders are names that say nothing about what a folder holds.
var noFolders = []string{"pkg", "util", "utils", "common", "helper", "helpers", "misc", "base", "lib"}

// pkg is what the rules look at.
type pkg struct {
	dir     string   // relative to the repository root
	name    string   // of the package
	imports []string // those of its internal tests and of files behind build tags included
}

// violations lists every import and name that the plan does not allow.
func violations(pkgs []pkg) []string {
	var found []string
	fault := func(p pkg, format string, args ...any) {
		found = append(found, p.dir+": "+fmt.Sprintf(format, args...))
	}
	for _, p := range pkgs {
		folders := strings.Split(p.dir, "/")
		for _, f := range folders {
			if slices.Contains(noFolders, f) {
				fault(p, "the name %q says nothing about what it holds", f)
			}
		}
		from := longest(rooms, p.dir)
		if from == "" {
			fault(p, "no room of the plan; there are cmd, coordinator, replica, allreduce, model, tools")
			continue
		}
		if p.name == "main" && from != "cmd" && from != "tools" {
			fault(p, "package main outside cmd and tools")
		}
		for _, path := range p.imports {
			if inside, ok := strings.CutPrefix(path, module+"/"); ok {
				to := longest(rooms, inside)
				if to != from && !slices.Contains(rooms[from], to) {
					fault(p, "imports %s: %s may use %v", inside, from, rooms[from])
				}
				continue
			}
			if host, _, _ := strings.Cut(path, "/"); path != "C" && !strings.Contains(host, ".") {
				continue // the standard library
			}
			library := longest(libraries, path)
			allowed := libraries[library]
			here := func(name string) bool { return name == "*" || slices.Contains(folders, name) }
			if !slices.ContainsFunc(allowed, here) {
				fault(p, "imports %s, which belongs in folders named %v", path, allowed)
			}
		}
	}
	return found
}

// longest is the longest key of table that is path or a parent of it, "" when
// there is none.
func longest(table map[string][]string, path string) string {
	best := ""
	for key := range table {
		if (path == key || strings.HasPrefix(path, key+"/")) && len(key) > len(best) {
			best = key
		}
	}
	return best
}

func TestArrows(t *testing.T) {
	for _, v := range violations(list(t)) {
		t.Error(v)
	}
}

// list reads the repository: go list for what this build sees, and the
// imports of files behind other build tags and platforms.
func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "./...").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("go list: %v\n%s", err, failed.Stderr)
	}
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var listed struct {
			Dir, Name            string
			Imports, TestImports []string
			IgnoredGoFiles       []string
		}
		if err := dec.Decode(&listed); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read the output of go list: %v", err)
		}
		dir, err := filepath.Rel(root, listed.Dir)
		if err != nil {
			t.Fatal(err)
		}
		p := pkg{dir: filepath.ToSlash(dir), name: listed.Name}
		// An external test package (coordinator_test) wires parts together, as
		// cmd does, so its imports are free.
		p.imports = slices.Concat(listed.Imports, listed.TestImports)
		for _, file := range listed.IgnoredGoFiles {
			p.imports = append(p.imports, importsOf(t, filepath.Join(listed.Dir, file))...)
		}
		slices.Sort(p.imports)
		p.imports = slices.Compact(p.imports)
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestArrowsCanFail gives every rule something to find, and a clean house.
func TestArrowsCanFail(t *testing.T) {
	clean := []pkg{
		{"cmd/mochi", "main", []string{"fmt", "mochi/coordinator", "mochi/coordinator/natsbus", "mochi/replica", "mochi/model/engine/gorgonia", "golang.org/x/term"}},
		{"coordinator", "coordinator", []string{"mochi/coordinator/protocol"}},
		{"coordinator/jetstream", "jetstream", []string{"mochi/coordinator", "github.com/nats-io/nats.go/jetstream"}},
		{"replica", "replica", []string{"mochi/coordinator/protocol", "mochi/replica/queue", "mochi/allreduce", "mochi/model/loss"}},
		{"model/engine/gorgonia", "gorgonia", []string{"gorgonia.org/gorgonia", "mochi/model/network"}},
		{"allreduce/natsring", "natsring", []string{"github.com/nats-io/nats.go", "golang.org/x/sync/errgroup"}},
		{"tools/checksamples", "main", []string{"encoding/json"}},
	}
	if found := violations(clean); len(found) > 0 {
		t.Errorf("a house by the plan: %q", found)
	}
	for name, bad := range map[string]pkg{
		"replica to coordinator":     {"replica", "replica", []string{"mochi/coordinator"}},
		"replica to jetstream":       {"replica", "replica", []string{"mochi/coordinator/jetstream"}},
		"coordinator to replica":     {"coordinator", "coordinator", []string{"mochi/replica/queue"}},
		"coordinator to its adapter": {"coordinator", "coordinator", []string{"mochi/coordinator/jetstream"}},
		"protocol outward":           {"coordinator/protocol", "protocol", []string{"mochi/coordinator"}},
		"model to allreduce":         {"model/loss", "loss", []string{"mochi/allreduce"}},
		"allreduce to model":         {"allreduce", "allreduce", []string{"mochi/model/network"}},
		"model to the cluster":       {"model", "model", []string{"mochi/coordinator/protocol"}},
		"to cmd":                     {"tools/x", "main", []string{"mochi/cmd/mochi"}},
		"nats outside its folders":   {"replica", "replica", []string{"github.com/nats-io/nats.go"}},
		"a second embedded server":   {"coordinator/natsbus", "natsbus", []string{"github.com/nats-io/nats-server/v2/server"}},
		"nats in cmd":                {"cmd/mochi", "main", []string{"github.com/nats-io/nats.go"}},
		"gorgonia in the model":      {"model", "model", []string{"gorgonia.org/tensor"}},
		"cu in gorgonia":             {"model/engine/gorgonia", "gorgonia", []string{"gorgonia.org/cu"}},
		"memberlist elsewhere":       {"coordinator", "coordinator", []string{"github.com/hashicorp/memberlist"}},
		"cgo elsewhere":              {"allreduce/codec", "codec", []string{"C"}},
		"unknown dependency":         {"replica", "replica", []string{"example.org/new"}},
		"main in a library":          {"replica/queue", "main", nil},
		"empty name":                 {"model/util", "util", nil},
		"no room":                    {"internal/x", "x", nil},
	} {
		if found := violations([]pkg{bad}); len(found) != 1 {
			t.Errorf("%s: found %q, want exactly one violation", name, found)
		}
	}
}
