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
	if paths, bad := c.weatherOf(f); paths != nil {
		undo, err := c.skies.add(paths, bad)
		if err == nil {
			_ = wait(ctx, f.For)
		}
		return errors.Join(err, undo())
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

// weatherOf is what a fault of the network does, and on which paths; none when it is
// another kind of fault.
func (c *cluster) weatherOf(f Fault) ([]path, weather) {
	up, down := path{f.Who, hub}, path{hub, f.Who}
	ring := path{f.Who, f.To}
	cut := weather{cut: true}
	late, lossy := weather{delay: 100 * time.Millisecond}, weather{loss: 0.05}
	switch f.Kind {
	case "cut-up":
		return []path{up}, cut
	case "cut-down":
		return []path{down}, cut
	case "cut":
		return []path{up, down}, cut
	case "slow":
		return []path{up, down}, weather{rate: 64 << 10}
	case "delay":
		return []path{up, down}, late
	case "loss":
		return []path{up, down}, lossy
	case "ring-cut":
		return []path{ring}, cut
	case "ring-slow":
		return []path{ring}, weather{rate: 1 << 20}
	case "ring-delay":
		return []path{ring}, late
	case "ring-loss":
		return []path{ring}, lossy
	case "alone":
		paths := []path{up, down}
		for name := range c.replicas {
			if name != f.Who {
				paths = append(paths, path{f.Who, name}, path{name, f.Who})
			}
		}
		return paths, cut
	}
	return nil, weather{}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// disk is a small file system for the coordinator's state: ext4 in a file, or,
// where a loop device, mkfs.ext4 or fsfreeze is missing, one in memory, which
// cannot be frozen. It needs root.
type disk struct {
	at, ballast string
	freezes     bool
	why         error // that it does not freeze
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
	d := &disk{at: at, ballast: filepath.Join(at, "ballast"), freezes: true}
	for _, args := range [][]string{
		{"fsfreeze", "--version"}, {"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, at},
	} {
		if d.why = command(args...); d.why != nil {
			d.freezes = false
			return d, command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", at)
		}
	}
	return d, nil
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
	if d.freezes {
		_ = command("fsfreeze", "-u", d.at) // fails where nothing is frozen
	}
	if err := command("umount", d.at); err != nil {
		fmt.Fprintln(errs, "chaos:", err)
	}
}
