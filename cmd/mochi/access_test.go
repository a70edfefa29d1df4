package main

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
	"mochi/coordinator/identity"
	"mochi/coordinator/protocol/config"
)

// A cluster as the README says: a replica elsewhere needs the token, and the one to read
// with does not join. What the coordinator keeps is for its user alone.
func TestToken(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	state, addr := filepath.Join(t.TempDir(), "state"), freePort(t)
	copied := filepath.Join(t.TempDir(), "token")
	c := start(t, append([]string{"coordinator", "--listen", addr, "--state", state, "--steps", "1000000", "--token-file", copied}, tiny...)...)
	r := start(t, "replica", "--join", addr, "--data", data, "--name", "a", "--threads", "1", "--token-file", copied) // it may come later
	awaitStep(t, state, 3, c)
	token := strings.TrimSpace(mochi(t, "token", "show", "--state", state))
	if !strings.Contains(c.errs.String(), token) {
		t.Error("the token was not printed at the first start")
	}
	read := strings.TrimSpace(mochi(t, "token", "show", "--state", state, "--read"))
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir()) // elsewhere, from here on
	refused := func(want, env string, args ...string) {
		t.Helper()
		t.Setenv("MOCHI_TOKEN", env)
		p := start(t, args...)
		p.mustEnd(2)
		said := p.errs.String()
		if !strings.Contains(said, want) {
			t.Errorf("%v: %q is not in %s", args, want, said)
		}
		for _, secret := range []string{"onnx", "idx", token} {
			if env == "" && args[0] == "status" && strings.Contains(said, secret) {
				t.Errorf("a stranger was told %s: %s", secret, said)
			}
		}
	}
	joins := []string{"replica", "--join", addr, "--data", data, "--wait", "100ms"}
	refused("MOCHI_TOKEN", "", "status", "--join", addr)
	refused("MOCHI_TOKEN", "", joins...)
	refused("does not take this token", token[:len(token)-26]+read[len(read)-26:], joins...)
	refused("reads the status only", read, joins...)
	t.Setenv("MOCHI_TOKEN", read)
	var s struct {
		World    int  `json:"world"`
		Insecure bool `json:"insecure"`
	}
	if err := json.Unmarshal([]byte(mochi(t, "status", "--join", addr, "--json")), &s); err != nil || s.World != 1 || s.Insecure {
		t.Errorf("%+v, %v", s, err)
	}
	if err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can read %s: %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r.mustEnd(130)
}

// A folder that others can write into is refused.
func TestAFolderOfOthers(t *testing.T) {
	state := t.TempDir()
	if err := os.Chmod(state, 0o777); err != nil {
		t.Fatal(err)
	}
	refused(t, 2, append([]string{"coordinator", "--state", state}, tiny...), "state:", "chmod 700")
}

// A group needs keys that all have.
func TestAGroupWithoutKeys(t *testing.T) {
	refused(t, 2, append([]string{"coordinator", "--state", filepath.Join(t.TempDir(), "s"), "--name", "a",
		"--standby", "a=127.0.0.1:1,b=127.0.0.1:3,c=127.0.0.1:5"}, tiny...), "keys: missing", "mochi token keys")
}

// A token that was changed while a coordinator starts stays changed.
func TestRotatedMeanwhile(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	k := &coordinating{state: t.TempDir(), listen: "127.0.0.1:1"}
	open := func(root *identity.Root) {
		t.Helper()
		guard, err := new(guarding).open(k, root, run.NewProgress(io.Discard, config.Job{}))
		if err != nil {
			t.Fatal(err)
		}
		guard.close()
	}
	load := func() identity.Root {
		t.Helper()
		r, err := identity.LoadRoot(identityDir(k.state))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	open(nil)
	before := load() // as a coordinator that starts
	mochi(t, "token", "rotate", "--state", k.state)
	rotated := load()
	open(&before)
	if now := load(); now != rotated || now == before {
		t.Errorf("rotated to %+v, and it is %+v", rotated, now)
	}
	open(nil) // another has made the keys meanwhile
	if load() != rotated {
		t.Error("the keys were written over")
	}
	if err := os.RemoveAll(identityDir(k.state)); err != nil {
		t.Fatal(err)
	}
	open(&before) // the folder was moved aside
	if load() != before {
		t.Error("the keys did not come with it")
	}
}
