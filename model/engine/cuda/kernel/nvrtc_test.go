//go:build gpu

package kernel_test

import (
	"bytes"
	"os"
	"testing"

	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/library"
)

// Every kernel compiles for every architecture from Volta to Hopper; no GPU is
// needed for that, only NVRTC 11.8 or newer. MOCHI_TEST_GPU=1 (make test-gpu)
// makes its absence a failure.
func TestNVRTC(t *testing.T) {
	c, err := library.OpenCompiler()
	if err != nil && os.Getenv("MOCHI_TEST_GPU") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Logf("%s, version %d.%d", c.Name, c.Major, c.Minor)
	for _, target := range []library.Target{{Arch: 70, PTX: true}, {Arch: 70}, {Arch: 75}, {Arch: 80}, {Arch: 86}, {Arch: 89}, {Arch: 90}} {
		t.Run(target.String(), func(t *testing.T) {
			if target.Arch < 75 && c.Major >= 13 {
				t.Skip("CUDA 13 has no Volta any more")
			}
			image, err := c.Compile(kernel.Source(), target)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range kernel.Table {
				names := []string{k.Name}
				if k.Typed {
					names = []string{kernel.Name(k.Name, kernel.F32), kernel.Name(k.Name, kernel.BF16)}
				}
				for _, name := range names {
					if !bytes.Contains(image, []byte(name)) {
						t.Errorf("%s is not in the program", name)
					}
				}
			}
		})
	}
}
