//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"mochi/model/engine"
	"mochi/model/engine/cuda/fallback"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/library"
)

// compiled are the own kernels as the driver takes them.
type compiled struct {
	image    []byte
	target   library.Target
	nvrtc    string // version of the NVRTC that compiled them
	embedded bool   // when mochi was built, not here
	note     string // for Info: what is not as usual
}

// withoutNVRTC is an environment variable: "none" leaves the machine's NVRTC
// aside, to try the embedded kernels.
const withoutNVRTC = "MOCHI_CUDA_NVRTC"

// loadKernels loads the own kernels: compiled by NVRTC for this device, now or
// before, or, where there is no NVRTC for it, those that the build has as PTX.
func (e *gpu) loadKernels() (compiled, error) {
	k, err := compileKernels(e.device.Major, e.device.Minor)
	if err != nil {
		return k, err
	}
	if e.kernels, err = e.device.Load(k.image); err != nil {
		return k, err
	}
	var names []string
	for _, k := range kernel.Table {
		names = append(names, symbols(k)...)
	}
	return k, e.kernels.Find(names)
}

func compileKernels(major, minor int) (k compiled, err error) {
	c, k, err := compilerFor(major, minor)
	if err != nil {
		p, none := fallback.For(kernel.Source(), 10*major+minor)
		if none != nil {
			return k, fmt.Errorf("%w: %w; %w", engine.ErrUnsupported, err, none)
		}
		return compiled{image: p.PTX, target: library.Target{Arch: p.Arch, PTX: true}, nvrtc: p.Compiler, embedded: true,
			note: "; kernels of the build, without NVRTC here"}, nil
	}
	defer c.Close()
	build := func() ([]byte, error) { return c.Compile(kernel.Source(), k.target) }
	cache, err := library.UserCache()
	if err != nil {
		k.note = "; " + err.Error()
		k.image, err = build()
		return k, err
	}
	key := fmt.Sprintf("%s NVRTC %s %v\n%s", strings.Join(library.Options, " "), k.nvrtc, k.target, kernel.Source())
	image, kept, err := cache.Get(key, build)
	if kept != nil {
		k.note = "; " + kept.Error()
	}
	k.image = image
	return k, err
}

// compilerFor opens an NVRTC that compiles for the device.
func compilerFor(major, minor int) (c *library.Compiler, k compiled, err error) {
	if os.Getenv(withoutNVRTC) == "none" {
		return nil, k, errors.New("NVRTC is not wanted (" + withoutNVRTC + "=none)")
	}
	if c, err = library.OpenCompiler(); err != nil {
		return nil, k, err
	}
	k.nvrtc = fmt.Sprintf("%d.%d", c.Major, c.Minor)
	if k.target, err = c.Target(major, minor); err != nil {
		c.Close()
		return nil, k, err
	}
	return c, k, nil
}

// symbols are a kernel's entry points.
func symbols(k kernel.Kernel) []string {
	if k.Typed {
		return []string{kernel.Name(k.Name, kernel.F32), kernel.Name(k.Name, kernel.BF16)}
	}
	return []string{k.Name}
}
