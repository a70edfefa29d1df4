package exchange

import (
	"fmt"
	"io"
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/network"
)

// Detectron2 writes the backbone as the file that Detectron2's MODEL.WEIGHTS
// takes: a pickle of numpy arrays under its own names, to be matched with a
// model's by their longest suffix.
//
// Source: facebookresearch/detectron2, detectron2/checkpoint.
func Detectron2(w io.Writer, e Encoder) error {
	if !network.LargeImages(e.Net.Arch) {
		return fmt.Errorf("%s has not the stem of Detectron2's ResNets (7×7, stride 2, then a max-pool): it has no place for this encoder", e.Net.Arch)
	}
	model := &pickle.Dict{}
	for _, v := range e.StateDict("", false) {
		if v.Ints != nil {
			continue // counters of batches, which Detectron2's BatchNorm has not
		}
		model.Set(detectronName(v.Name), numpy(v))
	}
	root := &pickle.Dict{}
	root.Set("model", model)
	root.Set("__author__", "mochi")
	root.Set("matching_heuristics", true)
	text, err := pickle.Encode(root, pickle.Protocol3)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// detectronName is Detectron2's name of a tensor of torchvision's.
func detectronName(name string) string {
	parts := strings.Split(name, ".")
	if stage, isLayer := strings.CutPrefix(parts[0], "layer"); isLayer {
		parts[0] = "res" + string(stage[0]+1)
	} else {
		parts = append([]string{"stem"}, parts...)
	}
	for i, p := range parts {
		switch norm, isNorm := strings.CutPrefix(p, "bn"); {
		case isNorm:
			parts[i] = "conv" + norm + ".norm"
		case p == "downsample" && parts[i+1] == "0":
			parts[i], parts[i+1] = "shortcut", ""
		case p == "downsample":
			parts[i], parts[i+1] = "shortcut", "norm"
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "."), "..", ".")
}

// numpy is an array of numpy, as its __reduce__ says it.
func numpy(v array.Value) *pickle.Object {
	dtype := &pickle.Object{
		Class: pickle.Global{Module: "numpy", Name: "dtype"}, Args: pickle.Tuple{"f4", false, true},
		State: pickle.Tuple{3, "<", nil, nil, nil, -1, -1, 0},
	}
	shape := make(pickle.Tuple, len(v.Shape))
	for i, n := range v.Shape {
		shape[i] = n
	}
	return &pickle.Object{
		Class: pickle.Global{Module: "numpy.core.multiarray", Name: "_reconstruct"},
		Args:  pickle.Tuple{pickle.Global{Module: "numpy", Name: "ndarray"}, pickle.Tuple{0}, []byte("b")},
		State: pickle.Tuple{1, shape, dtype, false, v.Bytes()},
	}
}
