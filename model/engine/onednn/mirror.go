//go:build onednn

package onednn

/*
#include "program.h"
*/
import "C"

import (
	"mochi/model/engine"
	"mochi/model/engine/schedule"
)

// C's copies of Go's numbers, compared by the compiler: an index other than 0
// is out of bounds.
var (
	_ = [1]int{}[C.OX_QUERY-engine.QueryParams]
	_ = [1]int{}[C.OX_KEY-engine.KeyParams]
	_ = [1]int{}[C.OX_MOMENTUM-engine.Momentum]
	_ = [1]int{}[C.OX_QUERY_BUFFERS-engine.QueryBuffers]
	_ = [1]int{}[C.OX_KEY_BUFFERS-engine.KeyBuffers]
	_ = [1]int{}[C.OX_QUERY-engine.Query]
	_ = [1]int{}[C.OX_KEY-engine.Key]

	_ = [1]int{}[C.OX_TRAIN-engine.Train]
	_ = [1]int{}[C.OX_FORWARD_ONLY-engine.Forward]
	_ = [1]int{}[C.OX_EVAL-engine.Eval]

	_ = [1]int{}[C.MK_F32-schedule.F32]
	_ = [1]int{}[C.MK_BF16-schedule.BF16]

	_ = [1]int{}[C.OX_ARENA-schedule.Arena]
	_ = [1]int{}[C.OX_KEPT-schedule.Kept]
	_ = [1]int{}[C.OX_SCRATCH-schedule.Scratch]

	_ = [1]int{}[C.MK_MASK_NONE-schedule.MaskNone]
	_ = [1]int{}[C.MK_MASK_SELF-schedule.MaskSelf]
	_ = [1]int{}[C.MK_MASK_OUTPUT-schedule.MaskOutput]

	_ = [1]int{}[C.OX_FOLD-schedule.Fold]
	_ = [1]int{}[C.OX_GRAD_FOLD-schedule.GradFold]
	_ = [1]int{}[C.OX_STORE_WEIGHTS-schedule.StoreWeights]
	_ = [1]int{}[C.OX_STORE_BIAS-schedule.StoreBias]
	_ = [1]int{}[C.OX_TAILS-schedule.TailKinds]

	_ = [1]int{}[C.OX_IMAGES-schedule.Images]
	_ = [1]int{}[C.OX_CONV-schedule.Conv]
	_ = [1]int{}[C.OX_STATS-schedule.Stats]
	_ = [1]int{}[C.OX_APPLY-schedule.Apply]
	_ = [1]int{}[C.OX_MAXPOOL-schedule.MaxPool]
	_ = [1]int{}[C.OX_AVGPOOL-schedule.AvgPool]
	_ = [1]int{}[C.OX_ADD-schedule.Add]
	_ = [1]int{}[C.OX_RELU-schedule.ReLU]
	_ = [1]int{}[C.OX_BIAS-schedule.Bias]
	_ = [1]int{}[C.OX_NORMALIZE-schedule.Normalize]
	_ = [1]int{}[C.OX_GRADIENT-schedule.Gradient]
	_ = [1]int{}[C.OX_SUMS-schedule.Sums]
	_ = [1]int{}[C.OX_GRAD_APPLY-schedule.GradApply]
	_ = [1]int{}[C.OX_WEIGHT_GRAD-schedule.WeightGrad]
	_ = [1]int{}[C.OX_DATA_GRAD-schedule.DataGrad]
	_ = [1]int{}[C.OX_MAXPOOL_GRAD-schedule.MaxPoolGrad]
	_ = [1]int{}[C.OX_AVGPOOL_GRAD-schedule.AvgPoolGrad]
	_ = [1]int{}[C.OX_RELU_GRAD-schedule.ReLUGrad]
	_ = [1]int{}[C.OX_BIAS_GRAD-schedule.BiasGrad]
	_ = [1]int{}[C.OX_NORMALIZE_GRAD-schedule.NormalizeGrad]
	_ = [1]int{}[C.OX_KINDS-schedule.Kinds]
)
