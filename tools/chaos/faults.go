package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"mochi/tools/chaos/relay"
)

// carryOut does what a plan says, each fault at its moment, and returns when all
// are over. What could not be done is noted as a fault of the run.
func (c *cluster) carryOut(ctx context.Context, plan []Fault, d *disk) {
	began := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range plan {
		if wait(ctx, time.Until(began.Add(f.At))) != nil {
			return
		}
		wg.Go(func() {
			c.note("fault", f)
			if err := c.inflict(ctx, f, d); err != nil {
				c.blame("%v: %v", f, err)
			}
			c.note("over", f)
		})
	}
}

// inflict does one fault and takes it back, also when ctx is done.
func (c *cluster) inflict(ctx context.Context, f Fault, d *disk) error {
	p := c.replicas[f.Who]
	if f.Who == "coordinator" {
		p = c.coordinator
	}
	bad := map[string]relay.Conditions{
		"cut-up":   {CutUp: true},
		"cut-down": {CutDown: true},
		"cut":      {CutUp: true, CutDown: true},
		"slow":     {BytesPerSecond: 64 << 10},
		"delay":    {Delay: 100 * time.Millisecond},
		"loss":     {Loss: 0.05},
	}
	if conditions, ok := bad[f.Kind]; ok {
		c.relays[f.Who].Set(conditions)
		defer c.relays[f.Who].Set(relay.Conditions{})
		_ = wait(ctx, f.For)
		return nil
	}
	switch f.Kind {
	case "kill", "kill-coordinator", "drain":
		sig := syscall.SIGKILL
		if f.Kind == "drain" {
			sig = syscall.SIGTERM
		}
		done, err := p.signal(sig, true)
		if err != nil {
			return err
		}
		select {
		case <-done:
		case <-time.After(2 * time.Minute):
			return errors.New("it did not end within two minutes")
		}
		if status := p.status(); f.Kind == "drain" && status != 0 {
			c.blame("%v: it ended with status %d, not 0", f, status)
		}
		_ = wait(ctx, f.For)
		return c.start(p)
	case "stop", "stop-coordinator":
		if _, err := p.signal(syscall.SIGSTOP, false); err != nil {
			return err
		}
		_ = wait(ctx, f.For)
		_, err := p.signal(syscall.SIGCONT, false)
		return err
	case "disk-full":
		if err := d.fill(); err != nil {
			return err
		}
		_ = wait(ctx, f.For)
		return d.empty()
	case "disk-frozen":
		if err := d.freeze(); err != nil {
			return err
		}
		_ = wait(ctx, f.For)
		return d.thaw()
	}
	return fmt.Errorf("unknown kind %q", f.Kind)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// disk is an ext4 file system in a file, for the coordinator's state. It needs
// root, a loop device, mkfs.ext4 and fsfreeze.
type disk struct {
	at, ballast string
}

// mountDisk makes one of so many bytes in a folder.
func mountDisk(folder string, size int64) (*disk, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a disk of its own needs root")
	}
	image, at := filepath.Join(folder, "disk.img"), filepath.Join(folder, "disk")
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Truncate(size), f.Close(), os.MkdirAll(at, 0o755))
	if err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, at}} {
		if err := command(args...); err != nil {
			return nil, err
		}
	}
	return &disk{at: at, ballast: filepath.Join(at, "ballast")}, nil
}

func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// fill writes until there is no room, so that not a block is left.
func (d *disk) fill() error {
	f, err := os.Create(d.ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 1<<10; size /= 4 {
		for {
			if _, err = f.Write(make([]byte, size)); err != nil {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

func (d *disk) empty() error  { return os.Remove(d.ballast) }
func (d *disk) freeze() error { return command("fsfreeze", "-f", d.at) }
func (d *disk) thaw() error   { return command("fsfreeze", "-u", d.at) }

// close unmounts it. What it held is lost.
func (d *disk) close(errs io.Writer) {
	_ = command("fsfreeze", "-u", d.at) // fails where nothing is frozen
	if err := command("umount", d.at); err != nil {
		fmt.Fprintln(errs, "chaos:", err)
	}
}
