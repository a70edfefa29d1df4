package run

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openCopies(t *testing.T, dir string) (*Copies, string) {
	t.Helper()
	var said strings.Builder
	c, err := OpenCopies(dir, NewProgress(&said, demo(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, said.String()
}

func stepText(n int64) []byte {
	return fmt.Appendf(nil, `{"step":%d,"pad":"%s"}`, n, strings.Repeat("x", int(n%50)))
}

// TestCopiesAreTheSequence: lines come once, in order, whatever is sent again; what a
// crash cut short, at any byte, is gone, and comes again.
func TestCopiesAreTheSequence(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, LogFile)
	var want bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for crash := int64(0); crash < 60; crash++ {
		c, said := openCopies(t, dir)
		held, err := c.Held(LogFile)
		if err != nil || said != "" {
			t.Fatal(err, said)
		}
		from := max(1, held-3)
		want.Reset()
		for n := int64(1); n <= held+40; n++ {
			want.Write(append(stepText(n), '\n'))
			if n < from {
				continue
			}
			if err := c.Line(LogFile, n, stepText(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Line(LogFile, held+42, []byte("{}")); err == nil {
			t.Fatal("a line was left out")
		}
		if got := c.Recorded(false); got != held+40 {
			t.Fatalf("recorded %d of %d", got, held+40)
		}
		c.Close()
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(text, want.Bytes()) {
			t.Fatalf("crash %d: %d bytes, want %d (%v)", crash, len(text), want.Len(), err)
		}
		if err := os.Truncate(path, int64(len(text)-rng.IntN(200))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopiesAreRead: from any line on, in pieces.
func TestCopiesAreRead(t *testing.T) {
	c, _ := openCopies(t, t.TempDir())
	const total = 3*markEvery + 7
	for n := int64(1); n <= total; n++ {
		if err := c.Line(SamplesFile, n, stepText(n)); err != nil {
			t.Fatal(err)
		}
	}
	for from := int64(1); from <= total; from += 311 {
		for n := from; n <= total; {
			lines, err := c.Read(SamplesFile, n, 100_000)
			if err != nil || len(lines) == 0 {
				t.Fatalf("from %d: %d lines, %v", n, len(lines), err)
			}
			for _, l := range lines {
				if !bytes.Equal(l, stepText(n)) {
					t.Fatalf("line %d is %q", n, l)
				}
				n++
			}
		}
	}
	if lines, err := c.Read(SamplesFile, 5, 1); err != nil || len(lines) != 1 {
		t.Errorf("%d lines of at most one byte, %v", len(lines), err)
	}
	for _, n := range []int64{-1, 0, total + 1} {
		if lines, err := c.Read(SamplesFile, n, 1000); err != nil || len(lines) != 0 {
			t.Errorf("line %d: %q, %v", n, lines, err)
		}
	}
	if _, err := c.Read("../config.yaml", 1, 1000); err == nil {
		t.Error("another file was read")
	}
}

// TestDamagedCopy: from a damaged line on, all is kept elsewhere, and comes again.
func TestDamagedCopy(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCopies(t, dir)
	for n := int64(1); n <= 9; n++ {
		if err := c.Line(LogFile, n, stepText(n)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, LogFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	copy(bad[bytes.Index(bad, []byte(`{"step":5`)):], "\x00\x00\x00")
	if err := os.WriteFile(path, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	c, said := openCopies(t, dir)
	if held, _ := c.Held(LogFile); held != 4 || !strings.Contains(said, "line 5 is damaged") {
		t.Errorf("%d held; %s", held, said)
	}
	if kept, err := os.ReadFile(path + ".1"); err != nil || !bytes.HasSuffix(bad, kept) || !bytes.Contains(kept, stepText(9)) {
		t.Errorf("kept %q, %v", kept, err)
	}
	for n := int64(5); n <= 9; n++ {
		if err := c.Line(LogFile, n, stepText(n)); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, whole) {
		t.Errorf("%q, %v", text, err)
	}
}

// TestSharedSink: a step goes to the group once, also those that the files have.
func TestSharedSink(t *testing.T) {
	c, _ := openCopies(t, t.TempDir())
	if err := c.Line(LogFile, 1, []byte(`{"step":7}`)); err != nil {
		t.Fatal(err)
	}
	var put []string
	s := c.Shared(func(file string, line []byte) { put = append(put, file+string(line)) })
	for _, step := range []int64{7, 8, 8, 9} {
		if err := s.Step(LogFile, step, map[string]int64{"step": step}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Event(collapse{Step: 9}); err != nil {
		t.Fatal(err)
	}
	if len(put) != 3 || put[0] != LogFile+`{"step":8}` || put[1] != LogFile+`{"step":9}` || !strings.Contains(put[2], `{"event":"collapse"`) {
		t.Errorf("%q", put)
	}
}

// TestMeasured: the epoch of the last evaluation is known after a start, too.
func TestMeasured(t *testing.T) {
	dir := t.TempDir()
	c, _ := openCopies(t, dir)
	for n, line := range []string{`{"event":"geometry","epoch":4}`, `{"event":"knn","epoch":6}`, `{"step":9,"epoch":7}`} {
		if err := c.Line(LogFile, int64(n+1), []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	again, _ := openCopies(t, dir)
	if a, b := c.Measured(), again.Measured(); a != 4 || b != 4 {
		t.Errorf("epochs %d and %d, want 4", a, b)
	}
}

// TestCopiesBecomeSegments: a large file begins anew, over crashes too, and all lines are
// counted and read across its parts; what a segment has is not read at a start.
func TestCopiesBecomeSegments(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(Group(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, LogFile)
	const total = 4000
	for n := int64(1); n <= total; {
		c, said := openCopies(t, dir)
		if held, err := c.Held(LogFile); err != nil || held != n-1 || said != "" {
			t.Fatalf("%d held, not %d: %v %s", held, n-1, err, said)
		}
		for end := n + 900; n < end && n <= total; n++ {
			if f := c.files[LogFile]; f != nil {
				f.full = 20_000
			}
			if err := c.Line(LogFile, n, stepText(n)); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.Recorded(false); got != n-1 {
			t.Fatalf("recorded %d of %d", got, n-1)
		}
		c.Close()
	}
	segments, err := segmentsOf(path)
	if err != nil || len(segments) < 4 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	if err := os.Rename(path, segmentName(path, len(segments)+1)); err != nil { // a crash before it began anew
		t.Fatal(err)
	}
	c, _ := openCopies(t, dir)
	for n := int64(1); n <= total; {
		lines, err := c.Read(LogFile, n, 3000)
		if err != nil || len(lines) == 0 {
			t.Fatalf("from %d: %d lines, %v", n, len(lines), err)
		}
		for _, l := range lines {
			if !bytes.Equal(l, stepText(n)) {
				t.Fatalf("line %d is %q", n, l)
			}
			n++
		}
	}
	c.Close()
	damaged, err := os.ReadFile(segments[1])
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2] = 0
	if err := os.WriteFile(segments[1], damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	c, _ = openCopies(t, dir) // as large as it was: it is not read
	c.Close()
	if err := os.Truncate(segments[1], int64(len(damaged)-5)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCopies(dir, NewProgress(new(strings.Builder), demo(t))); err == nil || !strings.Contains(err.Error(), filepath.Base(segments[1])) {
		t.Errorf("a segment lost its end: %v", err)
	}
}
