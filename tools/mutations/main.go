// Command mutations puts known faults into a copy of this repository, one at a
// time, and says after how many random histories of package clustertest each is
// found. What is not found within the limit is a hole in the tests.
//
//	go run ./tools/mutations [-seeds 500] [-only WORD] [-list]
//
// It is run from the repository's root. A fault is a replacement of text that
// must occur exactly once: when the code has changed the tool says so, and the
// fault must be put anew. It ends with status 1 when a fault is not found, or
// cannot be put.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 500, "random histories a fault")
	only := flag.String("only", "", "the faults whose names contain `WORD`")
	list := flag.Bool("list", false, "list the faults")
	flag.Parse()
	if err := run(*seeds, *only, *list); err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(1)
	}
}

func run(seeds int, only string, list bool) error {
	missed := 0
	for _, m := range mutations {
		switch {
		case !strings.Contains(m.name, only):
		case list:
			fmt.Println(m.name)
		default:
			start := time.Now()
			verdict, found := try(m, seeds)
			if !found {
				missed++
			}
			fmt.Printf("%-70s %s (%.0f s)\n", m.name, verdict, time.Since(start).Seconds())
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d faults are not found", missed)
	}
	return nil
}

// try puts a fault into a copy and runs histories until one fails.
func try(m mutation, seeds int) (verdict string, found bool) {
	dir, err := os.MkdirTemp("", "mochi-mutation-")
	if err != nil {
		return err.Error(), false
	}
	defer os.RemoveAll(dir)
	if err := copyTree(dir); err != nil {
		return "copy the repository: " + err.Error(), false
	}
	for _, e := range m.edits {
		if err := e.apply(dir); err != nil {
			return err.Error(), false
		}
	}
	test := exec.Command("go", "test", "./coordinator/clustertest", "-run", "^TestChance$", "-count", "1", "-timeout", "30m",
		fmt.Sprintf("-clustertest.seeds=%d", seeds), "-clustertest.most=1")
	test.Dir = dir
	out, err := test.CombinedOutput()
	if err == nil {
		return fmt.Sprintf("NOT FOUND in %d histories", seeds), false
	}
	if failed := regexp.MustCompile(`seed (\d+)[:\s]+([^\n]*)`).FindSubmatch(out); failed != nil {
		return fmt.Sprintf("found by seed %s: %.110s", failed[1], failed[2]), true
	}
	return fmt.Sprintf("the tests do not run: %.400s", out), false
}

// copyTree copies what git tracks, as it lies there.
func copyTree(to string) error {
	names, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.Trim(string(names), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not yet committed
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// edit replaces the only occurrence of a text in a file.
type edit struct{ file, old, new string }

func (e edit) apply(dir string) error {
	path := filepath.Join(dir, e.file)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(data), e.old); n != 1 {
		return fmt.Errorf("%s has %q %d times, want once: put the fault anew", e.file, e.old, n)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(data), e.old, e.new, 1)), 0o600)
}
