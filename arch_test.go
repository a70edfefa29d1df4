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

// rooms says, for every room of the house, which other rooms it may use; "x/..."
// is x and all rooms below it. A folder belongs to the room with the longest
// matching name.
var rooms = map[string][]string{
	"cmd": {"coordinator/...", "replica/...", "allreduce/...", "model/..."},

	"coordinator":                 {"coordinator/blame", "coordinator/copies", "coordinator/deal", "coordinator/event", "coordinator/history", "coordinator/jury", "coordinator/patience", "coordinator/roster", "coordinator/round", "coordinator/protocol", "coordinator/protocol/audit", "coordinator/protocol/config", "model/figures"},
	"coordinator/blame":           {},
	"coordinator/copies":          {"coordinator/event", "coordinator/place", "coordinator/roster", "coordinator/protocol", "coordinator/protocol/config"},
	"coordinator/deal":            {},
	"coordinator/event":           {},
	"coordinator/history":         {"coordinator/protocol", "coordinator/protocol/config"},
	"coordinator/jury":            {"coordinator/protocol"},
	"coordinator/patience":        {},
	"coordinator/place":           {},
	"coordinator/roster":          {"coordinator/protocol"},
	"coordinator/round":           {"coordinator/copies", "coordinator/roster", "coordinator/protocol", "coordinator/protocol/config", "model/figures"},
	"coordinator/gossip":          {"coordinator/protocol"},
	"coordinator/identity":        {"coordinator/smallfile"},
	"coordinator/smallfile":       {},
	"coordinator/natsbus":         {"coordinator/smallfile", "coordinator/protocol", "coordinator/identity", "allreduce/natsserver"},
	"coordinator/wal":             {},
	"coordinator/commitlog":       {"coordinator/wal", "coordinator/protocol", "coordinator"},
	"coordinator/follow":          {},
	"coordinator/quorum":          {"coordinator/commitlog", "coordinator/follow", "coordinator/wal", "coordinator/protocol", "coordinator"},
	"coordinator/wal/waltest":     {"coordinator/wal"}, // serves tests: a disk that fails
	"coordinator/jetstream":       {"coordinator/follow", "coordinator/protocol", "coordinator/protocol/config", "coordinator"},
	"coordinator/bustest":         {"coordinator", "coordinator/protocol", "replica"},                                         // serves tests
	"coordinator/clustertest":     {"coordinator", "coordinator/...", "replica", "replica/...", "allreduce/...", "model/..."}, // serves tests: whole clusters on virtual time
	"coordinator/protocol":        {"coordinator/protocol/config", "model/figures"},
	"coordinator/protocol/audit":  {"coordinator/protocol", "coordinator/protocol/config"},
	"coordinator/protocol/config": {"coordinator/smallfile", "model/network", "model/limits"},

	"replica": {"replica/augment", "replica/checkpoint", "replica/criterion", "replica/data", "replica/input", "replica/queue", "replica/reduction",
		"coordinator/protocol", "coordinator/protocol/audit", "coordinator/protocol/config", "coordinator/gossip", "allreduce",
		"model", "model/engine", "model/figures", "model/loss", "model/network", "model/probe"},
	"replica/augment":             {"model/splitmix"},
	"replica/checkpoint":          {"replica/queue", "model/network"},
	"replica/criterion":           {"replica/queue", "allreduce", "model", "model/engine", "model/loss"},
	"replica/input":               {"replica/data"},
	"replica/reduction":           {"allreduce", "model/network"},
	"replica/data":                {"coordinator/smallfile", "model/exchange/pickle", "replica/augment", "coordinator/protocol", "coordinator/protocol/config", "model/splitmix"},
	"replica/queue":               {"allreduce", "model/engine"},
	"replica/replicatest":         {"replica", "replica/augment", "replica/data", "coordinator/protocol", "coordinator/protocol/config", "allreduce"},                                                                                                // serves tests and the bench
	"replica/replicatest/cluster": {"replica", "replica/replicatest", "replica/checkpoint", "replica/data", "replica/queue", "coordinator", "coordinator/event", "coordinator/protocol", "coordinator/protocol/config", "allreduce", "model/engine"}, // serves tests: a whole job in memory

	"allreduce":            {"allreduce/natsserver"},
	"allreduce/natsserver": {}, // a door of its own: the coordinator embeds a server too; existing below it serves tests

	"model":                      {"model/engine", "model/figures", "model/limits", "model/loss", "model/network", "model/optim"}, // the method
	"model/figures":              {},
	"model/nearest":              {},
	"model/limits":               {},
	"model/network":              {},
	"model/splitmix":             {},
	"model/optim":                {"model/network"},
	"model/loss":                 {"model/engine", "model/figures", "model/limits", "model/nearest", "model/splitmix"},
	"model/exchange":             {"model/exchange/...", "model/network"}, // other programs' names and files
	"model/exchange/array":       {},
	"model/exchange/pickle":      {},
	"model/exchange/torch":       {"model/exchange/array", "model/exchange/pickle"},
	"model/exchange/safetensors": {"model/exchange/array"},
	"model/exchange/npy":         {},
	"model/exchange/onnx":        {"model/network"},
	"model/exchange/parquet":     {},
	"model/eval":                 {"model/nearest", "model/engine", "model/network"},
	"model/probe":                {"model/engine/cpu"}, // linear classifiers, on its matrix products

	// The contract, what engines share, and the engines: none uses another.
	"model/engine":            {"model/nearest", "model/network"},
	"model/engine/enginetest": {"model/engine", "model/network"},
	"model/engine/cpu":        {"model/engine", "model/nearest"},
	"model/engine/schedule":   {"model/engine", "model/network"},
	"model/engine/gorgonia":   {"model/engine", "model/engine/cpu", "model/network", "model/optim"},
	"model/engine/onednn":     {"model/engine", "model/engine/cpu", "model/engine/schedule", "model/nearest", "model/network", "model/optim"},
	"model/engine/cuda":       {"model/engine", "model/engine/cpu", "model/engine/schedule", "model/nearest", "model/network", "model/optim"},

	"tools": {"coordinator/protocol/...", "replica/...", "allreduce/...", "model/..."},
	".":     {}, // the repository root: this test only
}

// testRooms says what the tests of a room may use besides. An external test
// package (coordinator_test) wires parts together, as cmd does: its imports are
// free.
var testRooms = map[string][]string{
	"coordinator/quorum":    {"coordinator/wal/waltest"},
	"replica":               {"model/engine/enginetest", "model/engine/gorgonia", "replica/replicatest"},
	"model/loss":            {"model/engine/cpu", "model/engine/onednn", "model/engine/cuda"}, // every engine's Contrast against one plain loss
	"model":                 {"model/engine/cpu"},
	"model/engine/gorgonia": {"model/engine/enginetest"},
	"model/engine/onednn":   {"model/engine/enginetest"},
	"model/engine/cuda":     {"model/engine/enginetest", "model/loss", "model/splitmix"},
}

// libraries says in which folders a dependency may be imported: those of the
// given names and what lies in them. "*" is everywhere. The longest matching
// prefix counts; a dependency without an entry has no place in the house yet.
var libraries = map[string][]string{
	"C":                               {"onednn", "cuda", "turbojpeg", "libdeflate", "simd"},
	"github.com/nats-io":              {"natsbus", "natsring", "jetstream", "existing"},
	"github.com/nats-io/nats-server":  {"natsserver"},
	"github.com/nats-io/jwt":          {"existing"}, // credentials of tests
	"github.com/hashicorp/memberlist": {"gossip"},
	"github.com/hashicorp/raft":       {"quorum"},
	"github.com/hashicorp/go-hclog":   {"quorum"}, // in the types of raft
	"gorgonia.org":                    {"gorgonia"},
	"gorgonia.org/cu":                 {"cuda"},
	"github.com/parquet-go":           {"parquet"},
	"github.com/minio/minio-go":       {"s3"},
	"github.com/klauspost/compress":   {"parquet"}, // of its pages
	"google.golang.org/protobuf":      {"onnx"},
	"go4.org/unsafe":                  {"gorgonia"},
	"github.com/chewxy/hm":            {"gorgonia"}, // in the types of gorgonia's operators
	"gonum.org/v1/gonum/graph":        {"gorgonia"},
	"github.com/cespare/xxhash/v2":    {"*"},
	"go.yaml.in/yaml/v3":              {"*"},
	"golang.org/x/sync":               {"*"},
	"golang.org/x/sys":                {"*"},
	"github.com/spf13":                {"cli"}, // cobra, pflag
	"golang.org/x/term":               {"cmd"},
	"golang.org/x/image":              {"data"}, // formats that the standard library lacks
	"golang.org/x/text":               {"data"}, // names in composed form
}

// noFolders are names that say nothing about what a folder holds.
var noFolders = []string{"pkg", "util", "utils", "common", "helper", "helpers", "misc", "base", "lib"}

// pkg is what the rules look at.
type pkg struct {
	dir     string   // relative to the repository root
	name    string   // of the package
	imports []string // those of files behind build tags included
	tests   []string // what its internal tests import, too
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
		check := func(path string, allowed []string) {
			if inside, ok := strings.CutPrefix(path, module+"/"); ok {
				to := longest(rooms, inside)
				if to != from && !slices.ContainsFunc(allowed, func(room string) bool { return covers(room, to) }) {
					fault(p, "imports %s: %s may use %v", inside, from, allowed)
				}
				return
			}
			if host, _, _ := strings.Cut(path, "/"); path != "C" && !strings.Contains(host, ".") {
				return // the standard library
			}
			places := libraries[longest(libraries, path)]
			here := func(name string) bool { return name == "*" || slices.Contains(folders, name) }
			if !slices.ContainsFunc(places, here) {
				fault(p, "imports %s, which belongs in folders named %v", path, places)
			}
		}
		for _, path := range p.imports {
			check(path, rooms[from])
		}
		for _, path := range p.tests {
			check(path, slices.Concat(rooms[from], testRooms[from]))
		}
	}
	return found
}

// covers says whether an entry of rooms means the room to.
func covers(entry, to string) bool {
	below, all := strings.CutSuffix(entry, "/...")
	return to == below || all && strings.HasPrefix(to, below+"/")
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
		p.imports, p.tests = listed.Imports, listed.TestImports
		for _, file := range listed.IgnoredGoFiles {
			name, paths := importsOf(t, filepath.Join(listed.Dir, file))
			switch {
			case !strings.HasSuffix(file, "_test.go"):
				p.imports = append(p.imports, paths...)
			case !strings.HasSuffix(name, "_test"):
				p.tests = append(p.tests, paths...)
			}
		}
		for _, paths := range []*[]string{&p.imports, &p.tests} {
			slices.Sort(*paths)
			*paths = slices.Compact(*paths)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

// importsOf is the package name and the imports of a file.
func importsOf(t *testing.T, file string) (name string, paths []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return f.Name.Name, paths
}

// TestArrowsCanFail gives every rule something to find, and a clean house.
func TestArrowsCanFail(t *testing.T) {
	clean := []pkg{
		{"cmd/mochi", "main", []string{"fmt", "mochi/coordinator", "mochi/coordinator/natsbus", "mochi/replica", "mochi/model/engine/gorgonia", "golang.org/x/term"}, nil},
		{"coordinator", "coordinator", []string{"mochi/coordinator/protocol"}, nil},
		{"coordinator/jetstream", "jetstream", []string{"mochi/coordinator", "github.com/nats-io/nats.go/jetstream"}, nil},
		{"replica", "replica", []string{"mochi/coordinator/protocol", "mochi/replica/queue", "mochi/allreduce", "mochi/model/loss"}, []string{"mochi/model/engine/gorgonia"}},
		{"model/engine/gorgonia", "gorgonia", []string{"gorgonia.org/gorgonia", "mochi/model/network"}, nil},
		{"allreduce/natsring", "natsring", []string{"github.com/nats-io/nats.go", "golang.org/x/sync/errgroup"}, nil},
		{"tools/checksamples", "main", []string{"encoding/json"}, nil},
	}
	if found := violations(clean); len(found) > 0 {
		t.Errorf("a house by the plan: %q", found)
	}
	for name, bad := range map[string]pkg{
		"replica to coordinator":     {"replica", "replica", []string{"mochi/coordinator"}, nil},
		"replica to jetstream":       {"replica", "replica", []string{"mochi/coordinator/jetstream"}, nil},
		"coordinator to replica":     {"coordinator", "coordinator", []string{"mochi/replica/queue"}, nil},
		"coordinator to its adapter": {"coordinator", "coordinator", []string{"mochi/coordinator/jetstream"}, nil},
		"protocol outward":           {"coordinator/protocol", "protocol", []string{"mochi/coordinator"}, nil},
		"model to allreduce":         {"model/loss", "loss", []string{"mochi/allreduce"}, nil},
		"allreduce to model":         {"allreduce", "allreduce", []string{"mochi/model/network"}, nil},
		"model to the cluster":       {"model", "model", []string{"mochi/coordinator/protocol"}, nil},
		"to cmd":                     {"tools/x", "main", []string{"mochi/cmd/mochi"}, nil},
		"nats outside its folders":   {"replica", "replica", []string{"github.com/nats-io/nats.go"}, nil},
		"a second embedded server":   {"coordinator/natsbus", "natsbus", []string{"github.com/nats-io/nats-server/v2/server"}, nil},
		"nats in cmd":                {"cmd/mochi", "main", []string{"github.com/nats-io/nats.go"}, nil},
		"gorgonia in the model":      {"model", "model", []string{"gorgonia.org/tensor"}, nil},
		"cu in gorgonia":             {"model/engine/gorgonia", "gorgonia", []string{"gorgonia.org/cu"}, nil},
		"memberlist elsewhere":       {"coordinator", "coordinator", []string{"github.com/hashicorp/memberlist"}, nil},
		"cgo elsewhere":              {"allreduce/codec", "codec", []string{"C"}, nil},
		"unknown dependency":         {"replica", "replica", []string{"example.org/new"}, nil},
		"onednn to gorgonia":         {"model/engine/onednn", "onednn", []string{"mochi/model/engine/gorgonia"}, nil},
		"cuda to onednn":             {"model/engine/cuda/plan", "plan", []string{"mochi/model/engine/onednn/contrast"}, nil},
		"gorgonia to the schedule":   {"model/engine/gorgonia", "gorgonia", []string{"mochi/model/engine/schedule"}, nil},
		"a test's engine in loss":    {"model/loss", "loss", []string{"mochi/model/engine/cuda"}, nil},
		"an engine's test":           {"model/engine/gorgonia", "gorgonia", nil, []string{"mochi/model/engine/onednn"}},
		"contract to an engine":      {"model/engine", "engine", []string{"mochi/model/engine/cpu"}, nil},
		"a new engine without entry": {"model/engine/tpu", "tpu", []string{"mochi/model/engine/cpu"}, nil},
		"model to replica":           {"model/eval", "eval", []string{"mochi/replica/queue"}, nil},
		"data to the loop":           {"replica/data", "data", []string{"mochi/replica"}, nil},
		"queue to the data":          {"replica/queue", "queue", []string{"mochi/replica/data"}, nil},
		"a second user of gorgonia":  {"model/engine/onednn", "onednn", []string{"gorgonia.org/gorgonia"}, nil},
		"a second user of cgo":       {"model/engine/cpu", "cpu", []string{"C"}, nil},
		"main in a library":          {"replica/queue", "main", nil, nil},
		"empty name":                 {"model/util", "util", nil, nil},
		"no room":                    {"internal/x", "x", nil, nil},
	} {
		if found := violations([]pkg{bad}); len(found) != 1 {
			t.Errorf("%s: found %q, want exactly one violation", name, found)
		}
	}
}
