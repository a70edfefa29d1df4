package run

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mochi/coordinator"
	"mochi/coordinator/protocol"
	"mochi/coordinator/round"
	"mochi/model/figures"
	"mochi/model/network"
	"mochi/replica/checkpoint"
)

var longSteps = flag.Int64("longrun.steps", 25_000, "steps of the run whose start is looked at")

// A run is opened again in bounded time and takes bounded room, but for log.jsonl's
// segments, however long it was: the newest lines and the commits that no two
// checkpoints cover are all that is read. (-longrun.steps=5000000 -v says how long.)
func TestLongRun(t *testing.T) {
	const every, batch = 5000, 1000 // steps between checkpoints; commits of one fsync
	steps := *longSteps / batch * batch
	path := filepath.Join(t.TempDir(), "run")
	cfg := demo(t)
	cfg.Steps, cfg.CheckpointEvery, cfg.KNNEvery = steps+1, every, 0
	open := func() (*Job, time.Duration) {
		began := time.Now()
		j, err := Open(path, cfg, Beginning{Resume: "auto"}, NewProgress(io.Discard, cfg))
		if err != nil {
			t.Fatal(err)
		}
		return j, time.Since(began)
	}
	yaml, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	j, fresh := open()
	j.Recorder.Know(protocol.Data{Train: 60_000})
	chain := ""
	var commits []protocol.Commit
	for step := int64(1); step <= steps; step++ {
		c := protocol.Commit{
			Step: step, Round: 7, Term: 1, Cursor: (step - 1) * int64(cfg.Batch), Batch: cfg.Batch,
			LR: 0.03, Momentum: 0.999, Digest: fmt.Sprintf("%016x", step*0x1234567),
		}
		for g := range 8 {
			c.Groups = append(c.Groups, protocol.GroupReport{Group: g, Figures: figures.Figures{Loss: 6.1 + float64(step%1000)/997, PosSim: 0.1234567}})
		}
		c.Chain = c.Link(chain)
		chain = c.Chain
		j.Recorder.Committed(coordinator.CommitRecord{
			Commit: c, World: 3, Digest: c.Digest, StepMS: 12.3456, ImagesPS: 1234.567, Time: time.Unix(step, step),
			Figures: round.RecordOf(c).Figures, Phases: map[string]float64{"query": 7.123, "key_forward": 2.345, "vote": 0.123, "commit": 1.234},
		})
		if commits = append(commits, c); len(commits) == batch {
			if err := j.Log.Adopt(context.Background(), commits); err != nil {
				t.Fatal(err)
			}
			commits = nil
		}
		if step%every == 0 {
			if err := j.Log.Forget(context.Background(), step-every); err != nil {
				t.Fatal(err)
			}
		}
	}
	stored := steps / every * every
	if _, err := checkpoint.SaveStep(j.Store.Dir, &checkpoint.State{
		Arch: cfg.Arch, Step: stored, Cursor: stored * int64(cfg.Batch), Net: &network.Network{Arch: cfg.Arch, Dim: 1}, Config: string(yaml),
		K: 1, Dim: 1, Queue: []float32{1}, QueueLabels: []int32{-1},
	}, cfg.Keep); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j, again := open()
	began := time.Now()
	tail, err := j.Log.After(t.Context(), j.From.Step)
	if err != nil {
		t.Fatal(err)
	}
	read := time.Since(began)
	last, found, err := j.Log.Last(t.Context())
	if err != nil || !found || last.Step != steps || last.Chain != chain || j.Recorded() != steps || int64(len(tail)) != steps-stored {
		t.Errorf("it ends at step %d, %d on record, %d commits after the checkpoint, %v", last.Step, j.Recorded(), len(tail), err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	newest, err := os.Stat(filepath.Join(path, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	size := folderSize(t, Commits(path))
	// Two distances of checkpoints, Keep, what Forget does not find worth it, and a
	// segment of the wal that it cannot let go of in part, of 1.5 KB a commit at most.
	if most := int64(2*every+2*1000)*1500 + 64<<20; size > most || newest.Size() > segmentBytes+1<<20 {
		t.Errorf("the commits take %d bytes, at most %d; log.jsonl %d, at most %d", size, most, newest.Size(), segmentBytes)
	}
	segments, err := segmentsOf(filepath.Join(path, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := int64(0)
	for _, name := range append(segments, filepath.Join(path, LogFile)) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines += int64(bytes.Count(text, []byte("\n")))
	}
	if lines != steps {
		t.Errorf("%d lines of %d steps", lines, steps)
	}
	t.Logf("%d steps: opened in %v (fresh: %v), commits after the checkpoint in %v; commits %.1f MB, log.jsonl %.1f MB and %d segments, all %.1f MB",
		steps, again.Round(time.Millisecond), fresh.Round(time.Millisecond), read.Round(time.Millisecond),
		float64(size)/1e6, float64(newest.Size())/1e6, len(segments), float64(folderSize(t, path))/1e6)
}

// folderSize is that of all files in a folder.
func folderSize(t *testing.T, path string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
