package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
)

// newestSegment is the file of the commit log that holds its end.
func newestSegment(t *testing.T, state string) (newest string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(run.Commits(state), "*"))
	if err != nil {
		t.Fatal(err)
	}
	most := int64(0)
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && !strings.HasPrefix(filepath.Base(f), "damaged-") && info.Size() > most {
			newest, most = f, info.Size()
		}
	}
	if newest == "" {
		t.Fatalf("no commit log in %s: %v", state, files)
	}
	return newest
}

// damage changes a file.
func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The commit log is damaged while the coordinator is down, or all of its folder is
// gone; the replicas live. The job goes on with the next step each time, and ends as
// if nothing had been.
func TestCommitLogIsMadeWhole(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	b := breakable(t, data, 2, "--checkpoint-every", "40")
	for i, how := range []struct {
		name   string
		damage func()
	}{
		{"a bit in the middle", func() {
			damage(t, newestSegment(t, b.state), func(d []byte) []byte { d[len(d)/2] ^= 4; return d })
		}},
		{"a bit near the end", func() {
			damage(t, newestSegment(t, b.state), func(d []byte) []byte {
				d[len(bytes.TrimRight(d, "\x00"))-200] ^= 4
				return d
			})
		}},
		{"half of it", func() {
			damage(t, newestSegment(t, b.state), func(d []byte) []byte { return d[:len(d)/2] })
		}},
		{"the log", func() {
			if err := os.RemoveAll(run.Commits(b.state)); err != nil {
				t.Fatal(err)
			}
		}},
		{"the folder", func() {
			if err := os.RemoveAll(b.state); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		b.awaitStep(int64(8 * (i + 1)))
		b.coordinator.kill()
		before := b.last()
		how.damage()
		b.restart("--checkpoint-every", "40")
		b.awaitStep(max(before, b.last()) + 1)
		for _, name := range []string{"rolled back", "replica ahead of the log"} {
			if e := b.events(name); len(e) > 0 {
				t.Fatalf("%s was lost: %s: %+v\n%s", how.name, name, e, b.coordinator.errs.String())
			}
		}
	}
	b.mustEndLike(whole, b.replicas...)
}

// Where nobody holds what the log has lost, the coordinator says so and ends; it goes on
// when it is told to, with the same bits.
func TestCommitLogIsNotWhole(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 100, 20)
	whole := unbroken(t, data)
	out := filepath.Join(t.TempDir(), "run")
	args := append([]string{"train", "--data", data, "--out", out, "--steps", "60", "--checkpoint-every", "20"}, tiny...)
	p := start(t, args...)
	awaitStep(t, out, 30, p)
	p.kill()
	damage(t, newestSegment(t, out), func(d []byte) []byte { return d[:len(d)/8] })
	p = start(t, args...)
	p.mustEnd(1)
	if said := p.errs.String(); !strings.Contains(said, "the commit log is not whole") || !strings.Contains(said, "--log rebuild") {
		t.Fatalf("it says %s", said)
	}
	p = start(t, append(args, "--log", "rebuild")...)
	p.mustEnd(0)
	mustEqual(t, whole, out)
	checkSamples(t, out, breakSteps, whole)
}
