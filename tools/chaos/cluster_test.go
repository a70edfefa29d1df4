package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stand makes a cluster whose program is a shell script, and says what was noted
// of it.
func stand(t *testing.T, script string) (*cluster, <-chan string) {
	folder := t.TempDir()
	program := filepath.Join(folder, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	notes := make(chan string, 100)
	c, err := newCluster(&cluster{mochi: program, folder: folder, note: func(what string, _ any) { notes <- what }}, []string{"a"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c, notes
}

// TestEndsByItself: a process that nobody ended is blamed with its status and
// started again, once.
func TestEndsByItself(t *testing.T) {
	c, notes := stand(t, "test -e \"$0.again\" && exec sleep 600; touch \"$0.again\"; exit 3\n")
	a := c.replicas["a"]
	if err := c.start(a); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"started", "ended", "started"} {
		if got := <-notes; got != want {
			t.Fatalf("%s, not %s", got, want)
		}
	}
	if broken := c.broken(); len(broken) != 1 || !strings.Contains(broken[0], "a ended by itself: exit status 3") {
		t.Errorf("%q", broken)
	}
	pid := a.pid()
	if err := c.start(a); err != nil || a.pid() != pid {
		t.Errorf("one that runs was started a second time: %v", err)
	}
}

// TestFaultsOnProcesses: a drain is to end with 0, which one that dies of the
// signal does not; what is killed or stopped is there again afterwards, and nobody is
// blamed for that.
func TestFaultsOnProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		script, kind, blame string
		runs                int // processes in all
	}{
		"kill":          {"exec sleep 600\n", "kill", "", 2},
		"stop":          {"exec sleep 600\n", "stop", "", 1},
		"drained badly": {"exec sleep 600\n", "drain", "ended with status -1, not 0", 2},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, notes := stand(t, c.script)
			if err := cluster.start(cluster.replicas["a"]); err != nil {
				t.Fatal(err)
			}
			if err := cluster.inflict(t.Context(), Fault{Kind: c.kind, Who: "a", For: time.Millisecond}, nil); err != nil {
				t.Fatal(err)
			}
			started := 0
			for len(notes) > 0 {
				if <-notes == "started" {
					started++
				}
			}
			broken := strings.Join(cluster.broken(), "\n")
			if started != c.runs || c.blame == "" && broken != "" || !strings.Contains(broken, c.blame) {
				t.Errorf("%d processes; %q", started, broken)
			}
			if err := syscall.Kill(cluster.replicas["a"].pid(), 0); err != nil {
				t.Errorf("it does not run: %v", err)
			}
		})
	}
}
