package exchange

import (
	"encoding/json"
	"fmt"

	"mochi/model/exchange/onnx"
)

// ONNX is the encoder as an ONNX model of any batch: its outputs are the
// backbone's features and the embedding. With fold, BatchNorms are part of the
// convolutions. What is to be done with an image stands in its metadata, with
// what else metadata has.
func ONNX(e Encoder, p Preprocessing, fold bool, metadata map[string]string) ([]byte, error) {
	text, err := json.Marshal(map[string]any{
		"color": "RGB", "range": []int{0, 1}, "resize_shorter_side": p.Resize, "crop": "center", "size": p.Size, "interpolation": "bilinear, antialiased",
		"mean": plain(p.Mean), "std": plain(p.Std), "layout": "NCHW",
	})
	if err != nil {
		return nil, err
	}
	all := map[string]string{"arch": e.Net.Arch, "preprocessing": string(text), "image_size": fmt.Sprint(p.Size)}
	for key, value := range metadata {
		all[key] = value
	}
	return onnx.Marshal(onnx.Model{Net: e.Net, Params: e.Params, Buffers: e.Buffers, Fold: fold, Metadata: all})
}
