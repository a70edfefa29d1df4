//go:build gpu

// Command ptx compiles the CUDA engine's own kernels to PTX, for machines
// without NVRTC, and leaves them where package fallback embeds them. Without an
// NVRTC on this machine it keeps what was made of this very source, removes the
// rest, says so, and succeeds: the build may then have no fallback.
//
//	ptx model/engine/cuda/fallback/ptx
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"mochi/model/engine/cuda/fallback"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/library"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ptx FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "ptx:", err)
		os.Exit(1)
	}
}

// keep is what is done without an NVRTC.
func keep(folder string, says io.Writer, missing error) error {
	for _, arch := range fallback.Archs {
		path := filepath.Join(folder, fallback.Name(arch))
		have, err := os.ReadFile(path)
		if err == nil && fallback.Of(have, kernel.Source()) {
			fmt.Fprintf(says, "ptx: kernels for compute_%d are there already\n", arch)
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		fmt.Fprintf(says, "ptx: no kernels for compute_%d; this build will need NVRTC where it runs, for there is none here: %v\n", arch, missing)
	}
	return nil
}

func run(folder string, says io.Writer) error {
	c, err := library.OpenCompiler()
	if missing := (*library.Missing)(nil); errors.As(err, &missing) {
		return keep(folder, says, err)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	for _, arch := range fallback.Archs {
		p := fallback.Program{Arch: arch, Compiler: fmt.Sprintf("%d.%d", c.Major, c.Minor)}
		path := filepath.Join(folder, fallback.Name(arch))
		if t, err := c.Target(arch/10, arch%10); err != nil || t.PTX {
			fmt.Fprintf(says, "ptx: NVRTC %s does not compile for compute_%d any more: no fallback for it\n", p.Compiler, arch)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		// Its head is all that has to be the same.
		have, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(have, p.File(kernel.Source())) {
			continue
		}
		if p.PTX, err = c.Compile(kernel.Source(), library.Target{Arch: arch, PTX: true}); err != nil {
			return err
		}
		if err := os.WriteFile(path, p.File(kernel.Source()), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(says, "ptx: NVRTC %s has compiled the kernels for compute_%d, %d KB, to be embedded\n", p.Compiler, arch, len(p.PTX)>>10)
	}
	return nil
}
