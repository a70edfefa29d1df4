package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// quiet is a run of one replica with the same settings, to which nothing happens.
type quiet struct {
	world  *world
	run    string // its folder
	cancel context.CancelFunc
	beside sync.WaitGroup
	err    error // of what ran beside
}

// startQuiet makes it, and lets it go beside the other run if that is asked for:
// always as far as the other one has come, since nobody knows how far that will be.
func (w *world) startQuiet(ctx context.Context) *quiet {
	q := &quiet{world: w, run: filepath.Join(w.out, "quiet")}
	ctx, q.cancel = context.WithCancel(ctx)
	if w.beside {
		q.beside.Go(func() { q.err = q.follow(ctx) })
	}
	return q
}

// atLeast is how many steps are worth a start of the program.
const atLeast = 100

func (q *quiet) follow(ctx context.Context) error {
	for at := int64(0); ; {
		reached, err := lastStep(q.world.cluster.state)
		if err == nil && reached >= at+atLeast {
			if err = q.train(ctx, reached); err == nil {
				at = reached
			} else if ctx.Err() == nil {
				return err
			}
		}
		if wait(ctx, time.Second) != nil {
			return nil
		}
	}
}

// train brings it to a step. When ctx ends meanwhile it is stopped in order, and the
// next call goes on from there.
func (q *quiet) train(ctx context.Context, step int64) error {
	args := slices.Concat([]string{"train", "--data", q.world.data, "--out", q.run, "--replicas", "1", "--threads", "1",
		"--steps", fmt.Sprint(step)}, q.world.cluster.settings)
	cmd := exec.CommandContext(ctx, q.world.mochi, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the quiet run: %w: %s", err, out[max(0, len(out)-1000):])
	}
	return nil
}

// end stops what runs beside.
func (q *quiet) end() {
	q.cancel()
	q.beside.Wait()
}

// finish brings it to the last step.
func (q *quiet) finish(ctx context.Context, step int64) error {
	q.end()
	q.world.note("quiet run", step)
	return errors.Join(q.err, q.train(ctx, step))
}
