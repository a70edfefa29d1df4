//go:build onednn

package contrast

/*
#cgo noescape ct_scan
#cgo nocallback ct_scan
#cgo noescape ct_pick
#cgo nocallback ct_pick
#cgo noescape ct_mix
#cgo nocallback ct_mix
#cgo noescape ct_end
#cgo nocallback ct_end
#cgo noescape ct_load
#cgo nocallback ct_load
#cgo noescape ct_widen
#cgo nocallback ct_widen
#cgo noescape ct_hardest
#cgo nocallback ct_hardest
#cgo CFLAGS: -O3 -std=gnu11 -Wall
#cgo LDFLAGS: -lm
#include "panel.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/cpu"
	"mochi/model/nearest"
)

// The C side's copies of the engine's numbers: a difference does not compile.
var (
	_ = [1]int{}[C.CT_LANES-engine.PanelQueries]
	_ = [1]int{}[C.CT_ROWS-engine.PanelRows]
	_ = [1]int{}[C.CT_TOP-engine.PartTop]
	_ = [1]int{}[C.CT_SUM-engine.PartSum]
	_ = [1]int{}[C.CT_QUERY-engine.PartQuery]
	_ = [1]int{}[C.CT_REAL-engine.PartReal]
	_ = [1]int{}[C.CT_POINT-engine.PartPoint]
	_ = [1]int{}[C.CT_SIM-engine.PartSim]
	_ = [1]int{}[C.CT_COUNT-engine.PartRows]
	_ = [1]int{}[C.CT_HARD-engine.PartHard]
	_ = [1]int{}[C.CT_HARD_SIM-engine.PartHardSim]
	_ = [1]int{}[C.CT_SCALARS-engine.PartScalars]
)

// New makes panels in C where avx512 says that the processor has AVX-512 F, BW,
// VL and DQ, else those of package cpu.
func New(avx512 bool) engine.Contrast {
	if avx512 {
		return contrast{}
	}
	return cpu.Contrast{}
}

type contrast struct{}

func (contrast) NewPanel(shape engine.PanelShape) (engine.Panel, error) {
	var wanted C.size_t
	p := &panel{shape: shape, dim: shape.Dim}
	p.c = C.ct_open(C.int(shape.Dim), C.int(shape.Hard), C.int(shape.Rows), C.int(shape.Points), &wanted)
	if p.c == nil {
		return nil, fmt.Errorf("no memory for the loss: %d bytes of a panel of %d queries × %d, %d hard negatives, %d synthetic points",
			wanted, engine.PanelQueries, shape.Dim, max(shape.Hard, shape.Rows), shape.Points)
	}
	runtime.AddCleanup(p, func(c *C.ct_panel) { C.ct_close(c) }, p.c)
	return p, nil
}

// panel is engine.Panel in C: see panel.h.
type panel struct {
	c     *C.ct_panel
	shape engine.PanelShape
	dim   int
}

func floats(x []float32) *C.float { return (*C.float)(unsafe.SliceData(x)) }
func ints(x []int32) *C.int32_t   { return (*C.int32_t)(unsafe.SliceData(x)) }
func halves(x []uint16) *C.uint16_t {
	return (*C.uint16_t)(unsafe.SliceData(x))
}

func (p *panel) Load(q []float32, labels []int32, invT float32, keep int) {
	C.ct_load(p.c, floats(q), C.int(len(q)/p.dim), ints(labels), C.float(invT), C.int(keep))
	runtime.KeepAlive(p)
}

func (p *panel) Raise(keep int) { C.ct_raise(p.c, C.int(keep)) }

func (p *panel) Begin() { C.ct_begin(p.c) }

func (p *panel) Scan(keys []float32, labels []int32, first int) {
	n := len(keys) / p.dim
	if len(keys) != n*p.dim || n > engine.PanelRows || labels != nil && len(labels) != n {
		panic(fmt.Sprintf("onednn: panel: %d values of keys × %d with %d labels", len(keys), p.dim, len(labels)))
	}
	C.ct_scan(p.c, floats(keys), C.int(n), ints(labels), C.uint32_t(first))
	runtime.KeepAlive(p)
}

func (p *panel) End(i int, dst []float32) {
	_ = dst[p.dim+engine.PartScalars-1]
	C.ct_end(p.c, C.int(i), floats(dst))
	runtime.KeepAlive(p)
}

func (p *panel) Hardest(i int, dst []nearest.Key) []nearest.Key {
	if cap(dst) == 0 {
		return dst
	}
	n := C.ct_hardest(p.c, C.int(i), (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(dst))), C.int(cap(dst)))
	runtime.KeepAlive(p)
	return dst[:n]
}

func (p *panel) Widen(dst []float32, src []uint16) {
	if len(src) == 0 {
		return
	}
	_ = dst[len(src)-1]
	C.ct_widen(floats(dst), halves(src), C.size_t(len(src)))
}

func (p *panel) Mix(m *engine.Mixture) {
	n, s, s2 := len(m.Sims), len(m.First), len(m.Partner)
	if len(m.Second) != s || len(m.Alpha) != s || len(m.Beta) != s2 || len(m.Part) != p.dim+engine.PartScalars {
		panic("onednn: panel: a mixture's lengths do not match")
	}
	if n > p.shape.Rows && s+s2 > 0 || s+s2 > p.shape.Points {
		panic(fmt.Sprintf("onednn: panel: a mixture of %d hard negatives and %d points, made for %d and %d", n, s+s2, p.shape.Rows, p.shape.Points))
	}
	if s+s2 > 0 {
		at := 0
		for i := range m.From {
			from := &m.From[i]
			if at+len(from.Rows) > n {
				break
			}
			C.ct_pick(p.c, C.int(at), floats(from.Keys), halves(from.BF16), C.size_t(from.Stride), ints(from.Rows), C.int(len(from.Rows)))
			at += len(from.Rows)
		}
		if at != n {
			panic(fmt.Sprintf("onednn: panel: rows and similarities of a mixture differ in number: %d similarities", n))
		}
	}
	C.ct_mix(p.c, floats(m.Query), floats(m.Sims), C.int(n),
		ints(m.First), ints(m.Second), floats(m.Alpha), C.int(s), ints(m.Partner), floats(m.Beta), C.int(s2),
		C.float(m.InvT), floats(m.Part))
	runtime.KeepAlive(p)
}
