// Command lint checks the Go code and the documents of this repository with
// everything that lint.toml configures: staticcheck, revive, errcheck, and the
// rules of this project that no linter knows (bytext.go, links.go).
//
// It is run in the repository root, by `make lint`, with the linters' programs
// in the folder of its own:
//
//	bin/lint/lint -tags "onednn turbojpeg"
//
// It prints a line for each finding, file:line: what, and exits with 1 when
// there is one. All linters run before it ends. It and the linters are a module
// of their own, so that the product's go.sum holds nothing of theirs.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// config is what is read of lint.toml; revive reads the rest itself.
type config struct {
	Errcheck struct {
		Exclude      []string // functions, as errcheck writes them
		ExcludeCalls []string `toml:"exclude_calls"` // last names of calls, whatever the type
	}
}

const configFile = "tools/lint/lint.toml"

func main() {
	tags := flag.String("tags", "", "build tags of what is checked, separated by spaces")
	flag.Parse()
	clean, err := run(*tags)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	if !clean {
		os.Exit(1)
	}
}

// run runs all linters in turn and says whether they found nothing. An error
// says that one could not do its work.
func run(tags string) (clean bool, err error) {
	var c config
	if _, err := toml.DecodeFile(configFile, &c); err != nil {
		return false, err
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	programs := filepath.Dir(self)
	excluded, err := os.CreateTemp("", "errcheck")
	if err != nil {
		return false, err
	}
	defer os.Remove(excluded.Name())
	_, err = excluded.WriteString(strings.Join(c.Errcheck.Exclude, "\n") + "\n")
	if err := cmp.Or(err, excluded.Close()); err != nil {
		return false, err
	}

	linters := []struct {
		name string
		run  func() ([]string, error)
	}{
		{"errors by text", byText},
		{"links", brokenLinks},
		{"revive", func() ([]string, error) {
			return tool(programs, "revive", "-config", configFile, "-set_exit_status", "./...")
		}},
		{"errcheck", func() ([]string, error) {
			found, err := tool(programs, "errcheck", "-ignoretests", "-tags", tags, "-exclude", excluded.Name(), "./...")
			return c.withoutCalls(found), err
		}},
		{"staticcheck", func() ([]string, error) {
			return tool(programs, "staticcheck", "-tags", strings.ReplaceAll(tags, " ", ","), "./...")
		}},
	}
	clean = true
	for _, l := range linters {
		began := time.Now()
		found, err := l.run()
		if err != nil {
			return false, fmt.Errorf("%s: %w", l.name, err)
		}
		for _, f := range found {
			fmt.Printf("%s (%s)\n", f, l.name)
			clean = false
		}
		fmt.Printf("lint: %s: %d findings, %.1f s\n", l.name, len(found), time.Since(began).Seconds())
	}
	return clean, nil
}

// tool runs a linter that prints a line for each finding and then exits with
// 1. Any other end is an error.
func tool(folder, name string, args ...string) ([]string, error) {
	cmd := exec.Command(filepath.Join(folder, name), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	found := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	if err == nil && len(found) == 0 {
		return nil, nil
	}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || len(found) == 0 {
		return nil, fmt.Errorf("%w\n%s%s", cmp.Or(err, errNoStatus), out, errs.Bytes())
	}
	return found, nil
}

var errNoStatus = fmt.Errorf("found something and exited with 0")

// withoutCalls leaves out findings of errcheck whose call has an excluded last
// name: a line ends with the line of code.
func (c config) withoutCalls(found []string) []string {
	var kept []string
	for _, f := range found {
		f = here(f)
		excluded := false
		for _, name := range c.Errcheck.ExcludeCalls {
			excluded = excluded || strings.Contains(f, "."+name+"(")
		}
		if !excluded {
			kept = append(kept, f)
		}
	}
	return kept
}

// here is a finding of errcheck about a file that it could not read, told of the
// same file of this tree. Go's cache may hold what cgo made of a package for
// another clone on this machine, with that one's paths, and it may be gone since.
func here(finding string) string {
	at, unread := strings.CutSuffix(finding, "\t??")
	if !unread {
		return finding
	}
	place := strings.Split(at, ":") // file, line, column, ""
	if len(place) < 3 {
		return finding
	}
	number, err := strconv.Atoi(place[1])
	if err != nil {
		return finding
	}
	for name := place[0]; ; {
		_, rest, more := strings.Cut(name, "/")
		if !more {
			return finding
		}
		name = rest
		text, err := os.ReadFile(name)
		if lines := strings.Split(string(text), "\n"); err == nil && 0 < number && number <= len(lines) {
			return name + ":" + strings.Join(place[1:], ":") + "\t" + strings.TrimSpace(lines[number-1])
		}
	}
}
