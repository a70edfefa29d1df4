//go:build gpu

package library

/*
#include <stdlib.h>
#include "dnn.h"

// Addresses of device memory are no Go pointers; they come as integers.
static int md_run_at(md_conv *c, void *dnn, int direction, size_t a, size_t b, size_t to, size_t workspace, size_t bytes) {
	return md_run(c, dnn, direction, (const void *)a, (const void *)b, (void *)to, (void *)workspace, bytes);
}
static int md_measure_at(md_conv *c, void *dnn, int direction, size_t a, size_t b, size_t to, size_t workspace, size_t bytes,
	md_offer *offers, int room, int *count) {
	return md_measure(c, dnn, direction, (const void *)a, (const void *)b, (void *)to, (void *)workspace, bytes, offers, room, count);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"mochi/model/engine/cuda/driver"
)

// oldestDNN is the first version with bf16 convolutions in both directions.
const oldestDNN = 8200

// DNN is cuDNN with a handle on the current device, bound to one stream.
type DNN struct {
	Name    string // "libcudnn.so.9"
	Version int    // as the library counts: 8907, 90100
	l       *C.md_library
	handle  unsafe.Pointer
}

// OpenDNN opens cuDNN. The error is *Missing where there is none, or only an
// older one than 8.2.
func OpenDNN(s driver.Stream) (*DNN, error) { return openDNN(s, cudnn) }

func openDNN(s driver.Stream, where search) (*DNN, error) {
	d := &DNN{}
	name, err := where.open(func(handle unsafe.Pointer) error {
		var missing *C.char
		l := C.md_library_open(handle, &missing)
		if l == nil {
			return fmt.Errorf("it has no %s", C.GoString(missing))
		}
		if v := int(C.md_version(l)); v < oldestDNN {
			C.md_library_close(l)
			return fmt.Errorf("it is version %s; %s or newer is needed", VersionDNN(v), VersionDNN(oldestDNN))
		}
		d.l = l
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.Name, d.Version = name, int(C.md_version(d.l))
	if err := d.try("create a handle", C.md_create(d.l, &d.handle)); err != nil {
		C.md_library_close(d.l)
		return nil, err
	}
	if err := d.try("bind the stream", C.md_stream(d.l, d.handle, s.Handle())); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// VersionDNN is a version in digits and dots. cuDNN counted 1000·major before
// version 9, and 10000·major since.
func VersionDNN(v int) string {
	if v >= 90000 {
		return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
	}
	return fmt.Sprintf("%d.%d.%d", v/1000, v/100%10, v%100)
}

// Close destroys the handle; the library itself stays in memory.
func (d *DNN) Close() error {
	err := d.try("destroy the handle", C.md_destroy(d.l, d.handle))
	C.md_library_close(d.l)
	return err
}

func (d *DNN) try(action string, status C.int) error {
	if status != 0 {
		return fmt.Errorf("cuDNN: %s: status %d (%s)", action, status, C.GoString(C.md_text(d.l, status)))
	}
	return nil
}

// Direction is what a convolution computes.
type Direction int

// The directions.
const (
	Forward    Direction = iota // y from x and w
	DataGrad                    // dx from dy and w
	FilterGrad                  // dw from x and dy
)

func (d Direction) String() string {
	return [...]string{"forward", "data gradient", "filter gradient"}[d]
}

// Geometry is a convolution of x [N, H, W, C] with w [K, R, R, C] into
// y [N, OH, OW, K], R = Kernel.
type Geometry struct {
	N, H, W, C, K, OH, OW, Kernel, Stride, Pad int

	BF16 bool // all tensors; sums are fp32 in any case
	TF32 bool // without BF16: products may be made of 10-bit mantissas
}

func (g Geometry) String() string {
	t := "fp32"
	switch {
	case g.BF16:
		t = "bf16"
	case g.TF32:
		t = "tf32"
	}
	return fmt.Sprintf("%d×%d×%d×%d * %d×%d×%d stride %d pad %d in %s", g.N, g.H, g.W, g.C, g.K, g.Kernel, g.Kernel, g.Stride, g.Pad, t)
}

// Algorithm is one way to compute a direction.
type Algorithm struct {
	Number, Math int
	Workspace    int // bytes
	Milliseconds float64
}

// Conv is one convolution with its descriptors and chosen algorithms.
type Conv struct {
	d         *DNN
	g         Geometry
	c         *C.md_conv
	chosen    [3]bool
	workspace int
}

// NewConv makes the descriptors; Choose must follow for every direction that
// is run.
func (d *DNN) NewConv(g Geometry) (*Conv, error) {
	c := &Conv{d: d, g: g}
	raw := C.md_geometry{n: C.int(g.N), h: C.int(g.H), w: C.int(g.W), c: C.int(g.C), k: C.int(g.K), oh: C.int(g.OH), ow: C.int(g.OW),
		kernel: C.int(g.Kernel), stride: C.int(g.Stride), pad: C.int(g.Pad), bf16: truth(g.BF16), tf32: truth(g.TF32)}
	if err := d.try(fmt.Sprintf("describe the convolution %v", g), C.md_conv_open(d.l, &raw, &c.c)); err != nil {
		C.md_conv_close(c.c)
		return nil, err
	}
	return c, nil
}

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// fmaMath is arithmetic without tensor cores: fp32 as it is written. What an
// offer reports as its math may be another even where this was asked for, and
// taking over the report would turn TF32 on; so fp32 always says it again, and
// an algorithm that cannot is passed over.
const fmaMath = 3

// Choose takes cuDNN's first offer for a direction that gives the same bits
// from run to run, can do the wanted precision, and needs no more than limit
// bytes of workspace. What is offered depends on the geometry, the kind of
// device and cuDNN's version alone, so replicas on equal machines agree.
func (c *Conv) Choose(dir Direction, limit int) (Algorithm, error) {
	offers, err := c.offers(dir)
	if err != nil {
		return Algorithm{}, err
	}
	return c.take(dir, offers, limit)
}

// offers are cuDNN's, ranked by its own rules.
func (c *Conv) offers(dir Direction) ([]C.md_offer, error) {
	var offers [16]C.md_offer
	var n C.int
	err := c.d.try(fmt.Sprintf("algorithms for the %v of %v", dir, c.g),
		C.md_offers(c.c, c.d.handle, C.int(dir), &offers[0], C.int(len(offers)), &n))
	return offers[:n], err
}

// Room is the workspace that lets every algorithm be measured which gives the
// same bits from run to run and needs no more than limit bytes.
func (c *Conv) Room(dir Direction, limit int) (bytes int, err error) {
	offers, err := c.offers(dir)
	for _, o := range offers {
		if o.status == 0 && o.deterministic == 1 && int(o.workspace) <= limit {
			bytes = max(bytes, int(o.workspace))
		}
	}
	return bytes, err
}

// Measure takes the fastest algorithm with the properties of Choose that needs
// no more than the workspace. Operands are those of Run; to is overwritten with
// nothing of use. It waits for the device.
func (c *Conv) Measure(dir Direction, a, b, to driver.Pointer, workspace driver.Memory) (Algorithm, error) {
	var offers [16]C.md_offer
	var n C.int
	if err := c.d.try(fmt.Sprintf("measure the %v of %v", dir, c.g), C.md_measure_at(c.c, c.d.handle, C.int(dir),
		C.size_t(a), C.size_t(b), C.size_t(to), C.size_t(workspace.Pointer), C.size_t(workspace.Bytes), &offers[0], C.int(len(offers)), &n)); err != nil {
		return Algorithm{}, err
	}
	return c.take(dir, offers[:n], workspace.Bytes)
}

// Use takes an algorithm that was chosen or measured before.
func (c *Conv) Use(dir Direction, a Algorithm, limit int) error {
	_, err := c.take(dir, []C.md_offer{{algorithm: C.int(a.Number), math: C.int(a.Math), deterministic: 1}}, limit)
	return err
}

// take takes the first offer that will do.
func (c *Conv) take(dir Direction, offers []C.md_offer, limit int) (Algorithm, error) {
	passed := ""
	for _, o := range offers {
		switch {
		case o.status != 0:
			passed += fmt.Sprintf("; %d: status %d", o.algorithm, o.status)
			continue
		case o.deterministic != 1:
			passed += fmt.Sprintf("; %d: not deterministic", o.algorithm)
			continue
		case int(o.workspace) > limit:
			passed += fmt.Sprintf("; %d: needs %d MiB of workspace", o.algorithm, o.workspace>>20)
			continue
		}
		if !c.g.BF16 && !c.g.TF32 {
			o.math = fmaMath
		}
		var bytes C.size_t
		if status := C.md_choose(c.c, c.d.handle, C.int(dir), o.algorithm, o.math, &bytes); status != 0 || int(bytes) > limit {
			passed += fmt.Sprintf("; %d with math %d: status %d, %d MiB of workspace", o.algorithm, o.math, status, bytes>>20)
			continue
		}
		c.chosen[dir] = true
		c.workspace = max(c.workspace, int(bytes))
		return Algorithm{Number: int(o.algorithm), Math: int(o.math), Workspace: int(bytes), Milliseconds: float64(o.ms)}, nil
	}
	return Algorithm{}, fmt.Errorf("cuDNN %s has no algorithm for the %v of %v with at most %d MiB of workspace (of %d offered%s)",
		VersionDNN(c.d.Version), dir, c.g, limit>>20, len(offers), passed)
}

// String is its geometry.
func (c *Conv) String() string { return c.g.String() }

// Workspace is what the chosen algorithms need, bytes.
func (c *Conv) Workspace() int { return c.workspace }

// Run puts a direction into the stream: Forward a = x, b = w; DataGrad a = dy,
// b = w; FilterGrad a = x, b = dy. to is overwritten.
func (c *Conv) Run(dir Direction, a, b, to driver.Pointer, workspace driver.Memory) error {
	if !c.chosen[dir] {
		panic("library: no algorithm was chosen for the " + dir.String())
	}
	return c.d.try(fmt.Sprintf("%v of %v", dir, c.g), C.md_run_at(c.c, c.d.handle, C.int(dir),
		C.size_t(a), C.size_t(b), C.size_t(to), C.size_t(workspace.Pointer), C.size_t(workspace.Bytes)))
}

// Close frees the descriptors.
func (c *Conv) Close() {
	C.md_conv_close(c.c)
	c.c = nil
}
