// Package kernel is the CUDA engine's own kernels: CUDA C, embedded, and what
// a launch of each needs (the table of table.go, the rules of launch.go). It
// is plain Go without a driver: the engine compiles Source with NVRTC, and the
// tests run the same source on the CPU.
//
//	common.cu    bf16, vectors of channels, sums over a block
//	bn.cu        BatchNorm in training, grouped, with ReLU and residual joins
//	pool.cu      maximum over windows, mean over pixels
//	move.cu      formats, element-wise rest, bias, rows of length 1
//	update.cu    SGD, LARS and key encoder on flat vectors, working copies of weights
//	contrast.cu  the loss against shards of the queue
//
// Tensors are NHWC: [groups][rows][channels], rows = images·height·width of
// one BatchNorm group, dense. Feature maps are fp32 or bf16 (the suffix of a
// kernel's name); statistics, coefficients, masters and sums are fp32.
// Every tensor starts at a multiple of 16 bytes. Where channels are a multiple
// of 4 (fp32) or 8 (bf16), as in every ResNet, threads move 16 bytes at a
// time; other numbers of channels work, value by value.
//
// No header is included, so NVRTC needs none. No sum is made with
// floating-point atomics: the same launch gives the same bits, and launch
// rules depend on shapes alone, never on the device.
package kernel

import (
	"embed"
	"fmt"
	"strings"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/schedule"
)

// Type is the format of feature maps: the suffix of kernels that have one.
type Type int

// The types.
const (
	F32 Type = iota
	BF16
)

// String is "f32" or "bf16".
func (t Type) String() string { return [...]string{"f32", "bf16"}[t] }

// Size of one value, bytes.
func (t Type) Size() int { return [...]int{4, 2}[t] }

// Vector is how many channels a thread moves at a time: 16 bytes.
func (t Type) Vector() int { return 16 / t.Size() }

// Name is the symbol of a kernel that comes in both types: "bn_stats_bf16".
func Name(base string, t Type) string { return base + "_" + t.String() }

// Values that kernels take as int.
const (
	MaskNone   = int(schedule.MaskNone)   // no ReLU
	MaskSelf   = int(schedule.MaskSelf)   // x0·scale0 + shift0 > 0: the ReLU right after a BatchNorm
	MaskOutput = int(schedule.MaskOutput) // y > 0: from the stored output of a residual join
)

// Kind is the C type of a parameter.
type Kind string

// The kinds. T is float or bf16 (uint16), by the kernel's suffix; a pointer
// that may be null says so in its text.
const (
	Int     Kind = "int"
	Long    Kind = "long long"
	Float   Kind = "float"
	ULong   Kind = "unsigned long long"
	InT     Kind = "const T *"
	OutT    Kind = "T *"
	InF     Kind = "const float *"
	OutF    Kind = "float *"
	InI     Kind = "const int *"
	OutI    Kind = "int *"
	InByte  Kind = "const unsigned char *"
	OutByte Kind = "unsigned char *"
	InHalf  Kind = "const bf16 *"
	OutHalf Kind = "bf16 *"
	InKey   Kind = "const unsigned long long *"
	OutKey  Kind = "unsigned long long *"
	InW     Kind = "const weight *"
	InD     Kind = "const double *"
	OutD    Kind = "double *"

	InPiece  Kind = "const piece *"
	InTensor Kind = "const tensor *"
)

// Param is one parameter, in order.
type Param struct {
	Name string
	Kind Kind
	Text string // shape and meaning
}

// Kernel is one entry point.
type Kernel struct {
	Name   string // without the suffix
	Typed  bool   // there is one for each Type
	Launch string // the rule of launch.go
	Text   string
	Params []Param
}

// Weight is an entry of the table of kernel weights, as C lays it out.
type Weight struct {
	From, To int64 // first value among masters and among copies
	Out, In  int32
	Taps     int32 // kernel height × width
	Padded   int32 // input channels in the copy, ≥ In
}

// Piece is an entry of LARS's table of pieces (optim.Pieces), as C lays it out.
type Piece struct {
	From   int64 // first value among the flat parameters
	Values int32
	Tensor int32 // by parameter
}

// Tensor is which pieces a parameter has; of a vector it has none.
type Tensor struct{ First, Pieces int32 }

//go:embed *.cu
var files embed.FS

// order of the files in the program: each uses what stands before it.
var order = []string{"common.cu", "bn.cu", "pool.cu", "move.cu", "update.cu", "contrast.cu"}

// Source is the whole program, one translation unit for NVRTC. It ends with
// assertions that its numbers and tables are Go's.
func Source() string {
	var b strings.Builder
	for _, name := range order {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // embedded above
		}
		fmt.Fprintf(&b, "#line 1 %q\n%s", name, text)
	}
	b.WriteString("#line 1 \"mirror\"\n")
	for _, m := range mirrored {
		fmt.Fprintf(&b, "static_assert(%s == %d, \"Go has %d\");\n", m.c, m.value, m.value)
	}
	return b.String()
}

// mirrored is what stands in the files as Go has it.
var mirrored = []struct {
	c     string
	value int
}{
	{"PART_TOP", engine.PartTop},
	{"PART_SUM", engine.PartSum},
	{"PART_QUERY", engine.PartQuery},
	{"PART_REAL", engine.PartReal},
	{"PART_POINT", engine.PartPoint},
	{"PART_SIM", engine.PartSim},
	{"PART_ROWS", engine.PartRows},
	{"PART_HARD", engine.PartHard},
	{"PART_HARD_SIM", engine.PartHardSim},
	{"PART_SCALARS", engine.PartScalars},
	{"MASK_NONE", MaskNone},
	{"MASK_SELF", MaskSelf},
	{"MASK_OUTPUT", MaskOutput},
	{"sizeof(weight)", int(unsafe.Sizeof(Weight{}))},
	{"sizeof(piece)", int(unsafe.Sizeof(Piece{}))},
	{"sizeof(tensor)", int(unsafe.Sizeof(Tensor{}))},
}
