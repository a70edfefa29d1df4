// Package fallback is the CUDA engine's own kernels as PTX, compiled when mochi
// was built, for machines without NVRTC: the driver compiles PTX to the end. It
// is embedded where the build found an NVRTC (make build-gpu, by tools/ptx),
// for the oldest GPU that there is a use for and for each later architecture
// from which the source differs (CUDA 13's NVRTC knows no 7.0: such a build has
// the later one alone).
package fallback

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// Archs are the architectures that PTX is made for, rising; 70 is 7.0. From 8.0
// on the source uses an instruction for bf16.
var Archs = []int{70, 80}

//go:embed ptx
var embedded embed.FS

// Program is PTX of package kernel's source.
type Program struct {
	Arch     int    // it runs on this compute capability (70 is 7.0) and later ones
	Compiler string // version of the NVRTC that made it, "11.8"
	PTX      []byte
}

// For is the embedded program for a device of compute capability arch, made
// from the very source given. The error says why there is none.
func For(source string, arch int) (Program, error) { return find(embedded, source, arch) }

func find(files fs.FS, source string, arch int) (Program, error) {
	none := true
	for i := len(Archs) - 1; i >= 0; i-- {
		text, err := fs.ReadFile(files, path.Join("ptx", Name(Archs[i])))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		none = false
		if Archs[i] > arch {
			continue
		}
		if err != nil {
			return Program{}, err
		}
		p, of, err := parse(text)
		if err != nil {
			return Program{}, err
		}
		if of != digest(source) || p.Arch != Archs[i] {
			return Program{}, errors.New("this build's own kernels are of another source: make build-gpu makes them anew")
		}
		return p, nil
	}
	if none {
		return Program{}, errors.New("this build has no kernels of its own: it was made without NVRTC")
	}
	return Program{}, fmt.Errorf("this build's own kernels are for later devices than one of compute capability %d.%d", arch/10, arch%10)
}

// Name is the file of one architecture's program.
func Name(arch int) string { return fmt.Sprintf("compute_%d.ptx", arch) }

// header is the first line of a file, a comment in PTX.
const header = "// mochi kernels: compute_%d NVRTC %s source %s\n"

// File is what tools/ptx writes: a program and which source it was made from.
func (p Program) File(source string) []byte {
	return append(fmt.Appendf(nil, header, p.Arch, p.Compiler, digest(source)), bytes.TrimRight(p.PTX, "\x00")...)
}

// Of says whether a file was made from source.
func Of(file []byte, source string) bool {
	_, of, err := parse(file)
	return err == nil && of == digest(source)
}

func parse(text []byte) (p Program, of string, err error) {
	if _, err := fmt.Sscanf(string(text), header, &p.Arch, &p.Compiler, &of); err != nil {
		return Program{}, "", fmt.Errorf("this build's own kernels: no PTX that tools/ptx made: %w", err)
	}
	p.PTX = text
	return p, of, nil
}

func digest(source string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(source))) }
