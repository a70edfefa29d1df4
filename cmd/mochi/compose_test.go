package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// service is what the tests look at in a service of a compose file.
type service struct {
	Command string   `yaml:"command"`
	Volumes []string `yaml:"volumes"`
}

// composed are the services of compose files, each of which overrides those before it,
// with the variables' defaults; a variable without one is x.
func composed(t *testing.T, files ...string) map[string]service {
	t.Helper()
	variable := regexp.MustCompile(`\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}`)
	all := map[string]service{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct {
			Services map[string]service `yaml:"services"`
		}
		given := variable.ReplaceAllFunc(text, func(v []byte) []byte {
			if m := variable.FindSubmatch(v); !bytes.Contains(v, []byte(":?")) {
				return m[1]
			}
			return []byte("x")
		})
		if err := yaml.Unmarshal(given, &parsed); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, s := range parsed.Services {
			merged := all[name]
			if s.Command != "" {
				merged.Command = s.Command
			}
			merged.Volumes = append(merged.Volumes, s.Volumes...)
			all[name] = merged
		}
	}
	return all
}

// What the compose files start, the program takes: each command is right but for one
// fault that is put in, so that nothing starts. (tools/compose-test.sh runs them.)
func TestComposeFilesStart(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 20, 4)
	keys := filepath.Join(t.TempDir(), "keys")
	mochi(t, "token", "keys", keys)
	const base = "docker-compose.yml"
	for _, files := range [][]string{{base}, {base, "docker-compose.data.yml"}, {base, "docker-compose.group.yml"}} {
		for name, s := range composed(t, files...) {
			args := strings.Fields(s.Command)
			if len(args) == 0 { // it has another program
				continue
			}
			at := slices.Index(args, "--data")
			if at < 0 {
				t.Errorf("%v: %s has no --data", files, name)
				continue
			}
			args[at+1] = data
			if at := slices.Index(args, "--keys"); at >= 0 {
				args[at+1] = keys
			}
			// No flag wants this much; it is the fault that must be told, and alone.
			fault, wrong := "knn-images", "-1"
			if args[0] == "replica" {
				fault, wrong = "workers", "-1"
			}
			var out, errs bytes.Buffer
			status := execute(append(args, "--"+fault, wrong), &out, &errs)
			if want := "mochi: configuration: " + fault + ": "; status != 2 || !strings.HasPrefix(errs.String(), want) || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("%v: %s: status %d; it should only say %q, and says\n%s", files, name, status, want, errs.String())
			}
		}
	}
}

// The three coordinators of the group have each a name, an address that is the service's,
// and a folder of its own, and replicas know them all.
func TestComposeGroup(t *testing.T) {
	services := composed(t, "docker-compose.yml", "docker-compose.group.yml")
	if !slices.Contains(services["keys"].Volumes, "keys:/keys") {
		t.Errorf("nobody can make the keys: %q", services["keys"].Volumes)
	}
	flag := func(s service, name string) string {
		args := strings.Fields(s.Command)
		if at := slices.Index(args, name); at >= 0 {
			return args[at+1]
		}
		return ""
	}
	var members, join []string
	folders := map[string]bool{}
	for i, name := range []string{"coordinator", "coordinator-b", "coordinator-c"} {
		s := services[name]
		self := string(rune('a' + i))
		if got := flag(s, "--name"); got != self {
			t.Errorf("%s is %q, want %q", name, got, self)
		}
		state := slices.IndexFunc(s.Volumes, func(v string) bool { return strings.HasSuffix(v, ":/state") })
		if state < 0 || folders[s.Volumes[state]] || !slices.Contains(s.Volumes, "keys:/keys:ro") {
			t.Fatalf("%s has no folder of its own, or not the keys: %q", name, s.Volumes)
		}
		folders[s.Volumes[state]] = true
		members, join = append(members, self+"="+name+":4222"), append(join, name+":4222")
	}
	for _, name := range []string{"coordinator", "coordinator-b", "coordinator-c"} {
		if got, want := flag(services[name], "--standby"), strings.Join(members, ","); got != want {
			t.Errorf("%s stands by with %q, want %q", name, got, want)
		}
	}
	if got, want := flag(services["replica"], "--join"), strings.Join(join, ","); got != want {
		t.Errorf("replicas join %q, want %q", got, want)
	}
}
