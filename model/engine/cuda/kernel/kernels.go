// Package kernel is the CUDA engine's own kernels: CUDA C, embedded, and what
// a launch of each needs (this file's table, and the rules of launch.go). It
// is plain Go without a driver: the engine compiles Source with NVRTC, and the
// tests run the same source on the CPU.
//
//	common.cu    bf16, vectors of channels, sums over a block
//	bn.cu        BatchNorm in training, grouped, with ReLU and residual joins
//	pool.cu      maximum over windows, mean over pixels
//	move.cu      formats, element-wise rest, bias, rows of length 1
//	update.cu    SGD and key encoder on flat vectors, working copies of weights
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
	MaskNone   = 0 // no ReLU
	MaskSelf   = 1 // x0·scale0 + shift0 > 0: the ReLU right after a BatchNorm
	MaskOutput = 2 // y > 0: from the stored output of a residual join
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

// Table lists every kernel; a test holds it against the source.
var Table = []Kernel{
	// ---- BatchNorm (bn.cu) ----
	{"bn_stats", true, "Sums(t, groups, rows, channels, 2)",
		"Mean and Σ(x−mean)² of every chunk of a group's rows.", []Param{
			{"x", InT, "[groups][rows][channels]"},
			{"rows", Long, "of one group"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk, rows a block"},
			{"part", OutF, "[groups][chunks][2][channels]"},
		}},
	{"bn_fold", false, "Fold(groups, channels)",
		"Statistics and coefficients from those of the chunks: y = x·scale + shift.", []Param{
			{"part", InF, "[groups][chunks][2][channels]"},
			{"rows", Long, "of one group, ≥ 2"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk of bn_stats"},
			{"gamma", InF, "[channels]"},
			{"beta", InF, "[channels]"},
			{"eps", Float, ""},
			{"mean", OutF, "[groups][channels]"},
			{"invstd", OutF, "[groups][channels] 1/√(σ²+ε), σ² biased"},
			{"scale", OutF, "[groups][channels]"},
			{"shift", OutF, "[groups][channels]"},
			{"stat_mean", OutF, "[channels] of every group, stat_stride apart; may be null"},
			{"stat_var", OutF, "the same, with Bessel's correction; null when stat_mean is"},
			{"stat_stride", Int, "values from one group's statistics to the next"},
		}},
	{"bn_fold_eval", false, "Flat(channels)",
		"scale and shift from running statistics.", []Param{
			{"channels", Int, ""},
			{"mean", InF, "[channels]"},
			{"var", InF, "[channels]"},
			{"gamma", InF, "[channels]"},
			{"beta", InF, "[channels]"},
			{"eps", Float, ""},
			{"scale", OutF, "[channels]"},
			{"shift", OutF, "[channels]"},
		}},
	{"bn_apply", true, "Rows(t, groups, rows, channels)",
		"y = f(x·scale + shift + r), f ReLU or nothing, r nothing, residual, or residual·rscale + rshift. In mode Eval one group.", []Param{
			{"x", InT, "[groups][rows][channels]"},
			{"scale", InF, "[groups][channels]"},
			{"shift", InF, "[groups][channels]"},
			{"residual", InT, "like x; may be null"},
			{"rscale", InF, "[groups][channels]; may be null"},
			{"rshift", InF, "[groups][channels]; null when rscale is"},
			{"relu", Int, "0 or 1"},
			{"rows", Long, "of one group"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk"},
			{"y", OutT, "like x; may be x or residual"},
		}},
	{"bn_grad_sums", true, "Sums(t, groups, rows, channels, 1+branches)",
		"g = mask·(dy + add), rounded to T; partial sums Σg, Σg·(x0−mean0), Σg·(x1−mean1) over a group's rows.", []Param{
			{"dy", InT, "[groups][rows][channels]"},
			{"add", InT, "like dy; may be null"},
			{"mask", Int, "MaskNone, MaskSelf, MaskOutput"},
			{"y", InT, "like dy, for MaskOutput; may be null"},
			{"gout", OutT, "g, like dy; may be dy or add, or null"},
			{"branches", Int, "1 or 2 BatchNorms that the gradient flows into (0: only gout, part is not touched)"},
			{"x0", InT, "like dy, input of the first; null without branches"},
			{"scale0", InF, "[groups][channels], for MaskSelf; may be null"},
			{"shift0", InF, "[groups][channels], for MaskSelf; may be null"},
			{"mean0", InF, "[groups][channels]"},
			{"x1", InT, "like dy, input of the second; may be null"},
			{"mean1", InF, "[groups][channels]; may be null"},
			{"rows", Long, "of one group"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk"},
			{"part", OutF, "[groups][chunks][1+branches][channels]"},
		}},
	{"bn_grad_fold", false, "Fold(groups, channels)",
		"One branch's dγ, dβ (overwritten, a group's own) and the coefficients of dx = a·g + b·x + k.", []Param{
			{"part", InF, "[groups][chunks][1+branches][channels]"},
			{"rows", Long, "of one group"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk of bn_grad_sums"},
			{"branches", Int, "1 or 2, as there"},
			{"branch", Int, "0 or 1"},
			{"gamma", InF, "[channels]"},
			{"mean", InF, "[groups][channels]"},
			{"invstd", InF, "[groups][channels]"},
			{"dgamma", OutF, "[channels] of every group, grad_stride apart"},
			{"dbeta", OutF, "the same"},
			{"grad_stride", Long, "values from one group's gradients to the next"},
			{"a", OutF, "[groups][channels]"},
			{"b", OutF, "[groups][channels]"},
			{"k", OutF, "[groups][channels]"},
		}},
	{"bn_grad_apply", true, "Rows(t, groups, rows, channels)",
		"dx = a·g + b·x + k of 1 or 2 branches, g = mask·dy. Where bn_grad_sums wrote g, mask is MaskNone.", []Param{
			{"dy", InT, "[groups][rows][channels]"},
			{"mask", Int, "MaskNone, MaskSelf, MaskOutput"},
			{"y", InT, "like dy, for MaskOutput; may be null"},
			{"branches", Int, "1 or 2"},
			{"x0", InT, "like dy"},
			{"scale0", InF, "[groups][channels], for MaskSelf; may be null"},
			{"shift0", InF, "[groups][channels], for MaskSelf; may be null"},
			{"a0", InF, "[groups][channels]"},
			{"b0", InF, "[groups][channels]"},
			{"k0", InF, "[groups][channels]"},
			{"dx0", OutT, "like dy; may be dy or x0"},
			{"x1", InT, "like dy; may be null"},
			{"a1", InF, "[groups][channels]; may be null"},
			{"b1", InF, "[groups][channels]; may be null"},
			{"k1", InF, "[groups][channels]; may be null"},
			{"dx1", OutT, "like dy; may be dy when dx0 is not, or x1; may be null"},
			{"rows", Long, "of one group"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk"},
		}},

	// ---- Pooling (pool.cu) ----
	{"maxpool", true, "Pool(t, images, oh, ow, channels)",
		"Maximum over windows, padding is −∞; with scale it pools ReLU(x·scale + shift), rounded to T.", []Param{
			{"x", InT, "[images][ih][iw][channels]"},
			{"scale", InF, "[groups][channels]; may be null"},
			{"shift", InF, "[groups][channels]; null when scale is"},
			{"group_images", Int, "images of one BatchNorm group; not read without scale"},
			{"channels", Int, ""},
			{"ih", Int, ""}, {"iw", Int, ""}, {"oh", Int, ""}, {"ow", Int, ""},
			{"kernel", Int, "≤ 15"}, {"stride", Int, ""}, {"pad", Int, ""},
			{"y", OutT, "[images][oh][ow][channels]"},
			{"arg", OutByte, "like y: the tap of each maximum, the first in row order or the first NaN; may be null"},
		}},
	{"maxpool_grad", true, "Pool(t, images, ih, iw, channels)",
		"dx gathered from dy and arg.", []Param{
			{"dy", InT, "[images][oh][ow][channels]"},
			{"arg", InByte, "like dy"},
			{"channels", Int, ""},
			{"ih", Int, ""}, {"iw", Int, ""}, {"oh", Int, ""}, {"ow", Int, ""},
			{"kernel", Int, ""}, {"stride", Int, ""}, {"pad", Int, ""},
			{"dx", OutT, "[images][ih][iw][channels]"},
		}},
	{"avgpool", true, "Sums(t, images, pixels, channels, 1) with Grid[1] = 1",
		"Mean over pixels, in fp32: AvgPool(t, images, pixels, channels).", []Param{
			{"x", InT, "[images][pixels][channels]"},
			{"pixels", Int, ""},
			{"channels", Int, ""},
			{"y", OutF, "[images][channels]"},
		}},
	{"avgpool_grad", true, "Rows(t, images, pixels, channels)",
		"dy / pixels everywhere.", []Param{
			{"dy", InF, "[images][channels]"},
			{"rows", Long, "pixels"},
			{"channels", Int, ""},
			{"chunk", Int, "Tile.Chunk"},
			{"dx", OutT, "[images][pixels][channels]"},
		}},

	// ---- Formats and element-wise (move.cu) ----
	{"images", true, "Images(images, pixels)",
		"NCHW fp32 to NHWC T; channels from channels to padded are zero.", []Param{
			{"x", InF, "[images][channels][pixels]"},
			{"channels", Int, ""},
			{"padded", Int, "≥ channels"},
			{"pixels", Int, ""},
			{"y", OutT, "[images][pixels][padded]"},
		}},
	{"to_bf16", false, "Flat(n)", "Rounds to nearest, ties to even; NaN stays NaN.", []Param{
		{"n", Long, ""}, {"x", InF, "[n]"}, {"y", OutHalf, "[n]"},
	}},
	{"to_f32", false, "Flat(n)", "Exact.", []Param{
		{"n", Long, ""}, {"x", InHalf, "[n]"}, {"y", OutF, "[n]"},
	}},
	{"add", true, "Flat(n)", "y = a + b.", []Param{
		{"n", Long, ""}, {"a", InT, "[n]"}, {"b", InT, "[n]"}, {"y", OutT, "[n]; may be a or b"},
	}},
	{"relu", true, "Flat(n)", "y = max(x, 0), NaN stays.", []Param{
		{"n", Long, ""}, {"x", InT, "[n]"}, {"y", OutT, "[n]; may be x"},
	}},
	{"relu_grad", true, "Flat(n)", "dx = dy where y > 0, else 0.", []Param{
		{"n", Long, ""}, {"y", InT, "[n]"}, {"dy", InT, "[n]"}, {"dx", OutT, "[n]; may be dy or y"},
	}},
	{"bias", true, "Flat(n)", "y = f(x + bias), f ReLU or nothing.", []Param{
		{"n", Long, "rows·channels"}, {"channels", Int, ""}, {"x", InT, "[rows][channels]"},
		{"bias", InF, "[channels]"}, {"relu", Int, "0 or 1"}, {"y", OutT, "like x; may be x"},
	}},
	{"bias_grad", true, "AvgPool(t, 1, rows, channels)", "Column sums of dy, in fp32, overwritten.", []Param{
		{"dy", InT, "[rows][channels]"}, {"rows", Int, ""}, {"channels", Int, ""}, {"db", OutF, "[channels]"},
	}},
	{"l2norm", false, "PerRow(rows)", "y = x / max(‖x‖₂, 1e-12) of every row; the divisors stay in norms. Summed in double.", []Param{
		{"rows", Int, ""}, {"channels", Int, ""}, {"x", InF, "[rows][channels]"},
		{"y", OutF, "like x; may be x"}, {"norms", OutF, "[rows]"},
	}},
	{"l2norm_grad", false, "PerRow(rows)", "dx = (dy − y·(y·dy)) / ‖x‖; dy / 1e-12 where the norm was cut off.", []Param{
		{"rows", Int, ""}, {"channels", Int, ""}, {"y", InF, "[rows][channels]"}, {"norms", InF, "[rows]"},
		{"dy", InF, "like y"}, {"dx", OutF, "like y; may be dy"},
	}},

	// ---- Update (update.cu) ----
	{"update", false, "Flat(n)", "engine.Update of the parameters, to the bit: every operation rounded, none fused.", []Param{
		{"n", Long, ""}, {"lr", Float, ""}, {"momentum", Float, ""}, {"decay", Float, ""}, {"ema", Float, "m"},
		{"grad", InF, "[n]"}, {"velocity", OutF, "[n]"}, {"query", OutF, "[n]"}, {"key", OutF, "[n]"},
	}},
	{"running", false, "Flat(n)", "running ← keep·running + blend·statistic, unfused.", []Param{
		{"n", Long, ""}, {"keep", Float, "1 − blend, as Go rounds it"}, {"blend", Float, "0.1"},
		{"statistic", InF, "[n]"}, {"running", OutF, "[n]"},
	}},
	{"weights", true, "Weights(table)", "Working copies of weights from the flat masters: [out][in][taps] to [out][taps][padded], the rest zero.", []Param{
		{"table", InW, "[entries] Weight"}, {"masters", InF, "flat parameters"}, {"copies", OutT, "flat working copies"},
	}},
	{"weights_grad", true, "Flat(out·in·taps)", "A weight's gradient [out][taps][padded] to its place among the flat gradients [out][in][taps], fp32.", []Param{
		{"out", Int, ""}, {"in", Int, ""}, {"taps", Int, ""}, {"padded", Int, "≥ in"},
		{"dw", InT, "[out][taps][padded]"}, {"grad", OutF, "[out][in][taps]"},
	}},

	// ---- Loss (contrast.cu) ----
	// held: the shards on this device; b queries; V shards in all; part is [held][b][dim+9], engine.Part….
	{"contrast_select", false, "Select(b)", "The keep hardest of those kept so far and of one run of columns, in the order of columns. Runs must come in that order; two buffers take turns.", []Param{
		{"sims", InF, "[b][width] similarities of a run"}, {"width", Int, "columns of the run"}, {"first", Int, "its first column"},
		{"labels", InI, "[columns] classes of keys, −1 unknown; null without class oracle"}, {"classes", InI, "[b] of queries; null without"},
		{"keep", Int, "N"}, {"kept", InKey, "[b][N] nearest.Key, number = column; null at the first run"}, {"kept_counts", InI, "[b]; null with kept"},
		{"found", OutKey, "like kept; another buffer"}, {"counts", OutI, "[b]"},
	}},
	{"contrast_scan", true, "Scan(shards of the run, b)", "Scalars of the parts of a run of whole shards, and e = 2^((c−top)·per_two) as T.", []Param{
		{"sims", InF, "[b][width]"}, {"width", Int, ""}, {"first", Int, "first column of the run"}, {"starts", InI, "[shards of the run + 1] columns"},
		{"labels", InI, "as in contrast_select"}, {"classes", InI, ""}, {"per_two", Float, "1/(τ ln 2)"}, {"dim", Int, ""},
		{"e", OutT, "[b][width]; f32: may be sims"}, {"part", OutF, "[shards of the run][b][dim+9]: scalars only, Σ e·n is for cuBLAS"},
	}},
	{"contrast_rank", false, "Rank(b, max(N, held))", "Hard negatives of every query by shard, then rank.", []Param{
		{"found", InKey, "[b][N]"}, {"counts", InI, "[b]"}, {"keep", Int, "N"}, {"starts", InI, "[held+1] columns"}, {"shards", Int, "held"},
		{"values", OutF, "[b][N] q·n"}, {"columns", OutI, "[b][N]"}, {"shard_counts", OutI, "[b][held]"},
	}},
	{"contrast_draw", false, "Rank(b, pairs+points)", "The draws of package loss, of points whose shard is held.", []Param{
		{"pairs", Int, "s"}, {"points", Int, "s′"}, {"drawers", InKey, "[b] hash of seed, step and sample (loss.drawer)"}, {"shards", Int, "V"},
		{"first", InI, "[b][V+1] where each shard begins among a query's N hardest (loss.Threshold)"},
		{"local", InI, "[b][V+1] where it begins in this device's list; first itself when all are held"}, {"held", InI, "[V] position among those held, or −1"},
		{"shard", OutI, "[b][s+s′] position of the point's shard, −1 elsewhere"}, {"i", OutI, "[b][s+s′] place in the list, −1 for the query"},
		{"j", OutI, "[b][s+s′]"}, {"weight", OutF, "[b][s+s′] α or β"},
	}},
	{"contrast_points", true, "Points(b, s+s′)", "Similarity and coefficients of every point.", []Param{
		{"points", Int, "s+s′"}, {"queries", InF, "[b][dim]"}, {"keys", InT, "[columns][dim]"}, {"dim", Int, ""}, {"keep", Int, "N"},
		{"values", InF, "[b][N]"}, {"columns", InI, "[b][N]"}, {"shard", InI, "[b][s+s′]"}, {"i", InI, ""}, {"j", InI, ""}, {"weight", InF, ""},
		{"sim", OutF, "[b][s+s′]; untouched where shard is −1"}, {"wi", OutF, "α/ρ or β/ρ′"}, {"wj", OutF, ""},
	}},
	{"contrast_mix", false, "Mix(b, held)", "Scalars of the parts with their points, and weights of the hard negatives.", []Param{
		{"points", Int, "s+s′"}, {"shard", InI, "[b][s+s′]"}, {"i", InI, ""}, {"j", InI, ""}, {"sim", InF, ""}, {"wi", InF, ""}, {"wj", InF, ""},
		{"per_two", Float, ""}, {"keep", Int, "N"}, {"values", InF, "[b][N]"}, {"all_shards", Int, "V"}, {"first", InI, "[b][V+1]"}, {"local", InI, "[b][V+1]"},
		{"shards", Int, "held"}, {"numbers", InI, "[held] v"}, {"dim", Int, ""}, {"part", OutF, "[held][b][dim+9]: scalars only"},
		{"lowered", OutF, "[held][b] what the part's sums are scaled by"}, {"weights", OutKey, "[b][N] fixed point"},
	}},
	{"contrast_gather", true, "Gather(t, held, b, dim)", "part ← part·lowered + Σ weight·key.", []Param{
		{"keys", InT, "[columns][dim]"}, {"dim", Int, ""}, {"keep", Int, "N"}, {"columns", InI, "[b][N]"}, {"weights", InKey, "[b][N]"},
		{"lowered", InF, "[held][b]"}, {"all_shards", Int, "V"}, {"first", InI, "[b][V+1]"}, {"local", InI, "[b][V+1]"}, {"numbers", InI, "[held]"},
		{"part", OutF, "[held][b][dim+9]: vectors only"},
	}},
	{"contrast_put", true, "PerRow(n)", "Keys into the slots of the queue, with wrap-around.", []Param{
		{"n", Int, "≤ slots"}, {"dim", Int, ""}, {"from", InF, "[n][dim]"}, {"slot", Long, "of the first"}, {"slots", Long, "K"}, {"all_shards", Int, "V"},
		{"base", InI, "[V] first column of a shard, −1 where it is not held"}, {"keys", OutT, "[columns][dim]"},
	}},
}

// Weight is an entry of the table of kernel weights, as C lays it out.
type Weight struct {
	From, To int64 // first value among masters and among copies
	Out, In  int32
	Taps     int32 // kernel height × width
	Padded   int32 // input channels in the copy, ≥ In
}

//go:embed *.cu
var files embed.FS

// order of the files in the program: each uses what stands before it.
var order = []string{"common.cu", "bn.cu", "pool.cu", "move.cu", "update.cu", "contrast.cu"}

// Source is the whole program, one translation unit for NVRTC.
func Source() string {
	var b strings.Builder
	for _, name := range order {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // embedded above
		}
		fmt.Fprintf(&b, "#line 1 %q\n%s", name, text)
	}
	return b.String()
}
