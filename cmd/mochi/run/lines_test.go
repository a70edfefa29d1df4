package run

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// all is what a JSON-lines file has, with its segments.
func all(t *testing.T, path string) string {
	t.Helper()
	segments, err := segmentsOf(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range append(segments, path) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

// synced waits until the disk has what it was asked for.
func synced(f *lineFile) {
	if f.syncing != nil {
		f.syncing <- <-f.syncing
	}
}

// Whatever its size, how often it is opened again, whether its names were changed by
// half when the process died, and wherever settings change: a file and its segments
// have each line once, in order, of all steps that are not run again.
func TestSegmentsLoseNoLine(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		path := filepath.Join(t.TempDir(), "log.jsonl")
		var want []string
		step, cut, most := int64(0), int64(-1), 0
		for range 4 {
			if cut >= 0 {
				for i := len(want) - 1; i >= 0; i-- {
					var at int64
					if fmt.Sscanf(want[i], `{"step":%d`, &at); at > cut {
						want = append(want[:i], want[i+1:]...)
					}
				}
				step = min(step, cut)
			}
			f, err := openLines(path, cut)
			if err != nil {
				t.Fatal(err)
			}
			if f.last != step {
				t.Fatalf("seed %d: opened at step %d, it was %d", seed, f.last, step)
			}
			f.full = int64(random.IntN(400))
			for range random.IntN(60) {
				line := fmt.Sprintf(`{"event":"round","more":%q}`, strings.Repeat("x", random.IntN(50)))
				if random.IntN(3) > 0 {
					step++
					line = fmt.Sprintf(`{"step":%d}`, step)
					f.last = step
				}
				if err := f.write([]byte(line)); err != nil {
					t.Fatal(err)
				}
				want = append(want, line+"\n")
				if random.IntN(2) > 0 {
					synced(f)
				}
			}
			synced(f)
			f.file.Close()
			segments, _ := segmentsOf(path)
			most = max(most, len(segments))
			if got := all(t, path); got != strings.Join(want, "") {
				t.Fatalf("seed %d: %d bytes of\n%swant\n%s", seed, len(got), got, strings.Join(want, ""))
			}
			switch random.IntN(4) {
			case 0: // it died before the file began anew
				if err := os.Rename(path, segmentName(path, nextNumber(path, segments))); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path+".next", nil, 0o644); err != nil {
					t.Fatal(err)
				}
			case 1: // in the middle of a line
				g, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				g.WriteString(`{"step":9`)
				g.Close()
			}
			if cut = -1; random.IntN(3) == 0 {
				cut = random.Int64N(step + 1)
			}
		}
		if seed == 0 && most == 0 {
			t.Error("there were no segments")
		}
	}
}

// Names of segments are in the order of time for whoever lists them, and nothing else
// is taken for one.
func TestSegmentNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	for _, name := range []string{"log.jsonl", "log.1.jsonl", "log.000000.jsonl", "samples.000001.jsonl", "log.000002.jsonl.gz", "log.000010.jsonl", "log.000009.jsonl", "log.x.jsonl"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	segments, err := segmentsOf(path)
	if err != nil || len(segments) != 2 || filepath.Base(segments[0]) != "log.000009.jsonl" || nextNumber(path, segments) != 11 {
		t.Errorf("%q, %v", segments, err)
	}
}

// A run is opened again without writing what is there, on a full disk too; a line that
// was cut short is cut off in place.
func TestOpenedAgainWritesNothing(t *testing.T) {
	path, cfg := filepath.Join(t.TempDir(), "run"), demo(t)
	before := map[string]os.FileInfo{}
	for again := range 2 {
		j, err := Open(path, cfg, Beginning{Resume: "auto"}, NewProgress(io.Discard, cfg))
		if err != nil {
			t.Fatal(err)
		}
		if again == 0 {
			err = j.Dir.Step(LogFile, 1, StepLine{Step: 1})
		}
		if err := errors.Join(err, j.Close()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{LogFile, "config.yaml"} {
			info, err := os.Stat(filepath.Join(path, name))
			if err != nil {
				t.Fatal(err)
			}
			if was := before[name]; was != nil && (!os.SameFile(was, info) || was.Size() != info.Size()) {
				t.Errorf("%s was written again", name)
			}
			before[name] = info
		}
		f, err := os.OpenFile(filepath.Join(path, LogFile), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"step":2,"ep`); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}
