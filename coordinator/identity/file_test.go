package identity

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is named as a file of a key or a token, and is none, is an error at once: a pipe
// would be waited for, and a device never end.
func TestOnlyFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	pipe, long := filepath.Join(dir, "pipe"), filepath.Join(dir, "long")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(long, make([]byte, maxChain+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(path string) error{
		"token":       func(p string) error { _, err := readToken(p); return err },
		"source":      func(p string) error { return (&Source{Key: NewKey(), File: p}).Check() },
		"keys":        func(p string) error { _, err := ReadRoot(p); return err },
		"certificate": func(p string) error { _, err := LoadCertificate(p, p); return err },
		"authority":   func(p string) error { _, err := LoadRoots(p); return err },
	} {
		for path, want := range map[string]string{pipe: "a pipe", "/dev/zero": "a device", dir: "a folder", long: "at most"} {
			done := make(chan error, 1)
			go func() { done <- read(path) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s from %s: %v, want %q", what, path, err, want)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s from %s: it waits", what, path)
			}
		}
	}
}

// A token that was there is used as long as there is no other, wherever it came from: who
// takes it away does not make a replica talk in the clear.
func TestATokenThatWasTakenAwayIsKept(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	root := NewRoot()
	a, err := NewAuthority(root, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	const at = "127.0.0.1:4222"
	path := filepath.Join(t.TempDir(), "token")
	for name, c := range map[string]struct {
		s      *Source
		remove func() error
	}{
		"left by the coordinator": {&Source{Key: NewKey(), Joins: true}, func() error { Forget(at); return nil }},
		"a file":                  {&Source{Key: NewKey(), Joins: true, File: path}, func() error { return os.Remove(path) }},
	} {
		token := a.Token(Join)
		if _, err := Leave(at, token); err != nil {
			t.Fatal(err)
		}
		if err := WriteToken(path, token); err != nil {
			t.Fatal(err)
		}
		if config, err := c.s.Client(at); err != nil || config == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.remove(); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{at, "10.0.0.1:4222"} {
			if config, err := c.s.Client(address); err != nil || config == nil {
				t.Errorf("%s, taken away: to %s in the clear (%v)", name, address, err)
			}
		}
		root.Rotate(Join)
		next, err := NewAuthority(root, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Leave(at, next.Token(Join)); err != nil {
			t.Fatal(err)
		}
		if err := WriteToken(path, next.Token(Join)); err != nil {
			t.Fatal(err)
		}
		if now, err := c.s.Token(at); err != nil || now.String() != next.Token(Join).String() {
			t.Errorf("%s: a new one is not taken (%v)", name, err)
		}
	}
}
