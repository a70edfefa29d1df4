// Package torch writes files as torch.save does, and reads them: those of
// PyTorch 1.6 and later, a zip of stored storages and one pickle, and the older
// stream of pickles. Reading executes nothing (package pickle) and reads no
// tensor before it is asked for.
//
// Source: pytorch/pytorch, torch/serialization.py, torch/_utils.py,
// torch/_weights_only_unpickler.py and caffe2/serialize/inline_container.cc.
package torch

import (
	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
)

// storageTypes are the classes of storages and the types of their elements.
func storageTypes() map[string]array.Type {
	return map[string]array.Type{
		"DoubleStorage": array.F64, "FloatStorage": array.F32, "HalfStorage": array.F16, "BFloat16Storage": array.BF16,
		"LongStorage": array.I64, "IntStorage": array.I32, "ShortStorage": array.I16, "CharStorage": array.I8, "ByteStorage": array.U8, "BoolStorage": array.Bool,
	}
}

// rebuild is the function that makes a tensor of a storage.
var rebuild = pickle.Global{Module: "torch._utils", Name: "_rebuild_tensor_v2"}
