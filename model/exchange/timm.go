package exchange

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"mochi/model/exchange/safetensors"
)

// NamedFile is a file of a folder.
type NamedFile struct {
	Name    string
	Content []byte
}

// Timm makes the folder that timm.create_model("local-dir:DIR") takes, that is
// hf-hub:user/name where it is pushed to the Hub as it is, and that transformers
// opens as a TimmWrapperModel: configuration, weights, and a model card in which
// about, one or more sentences, says where the weights come from.
//
// Source: huggingface/pytorch-image-models, timm/models/_hub.py.
func Timm(e Encoder, p Preprocessing, about string) ([]NamedFile, error) {
	arch := published(e.Net.Arch)
	if arch == "" {
		return nil, fmt.Errorf("timm has no network like %s (its stem is made for small images): export --format torchvision or onnx", e.Net.Arch)
	}
	config, err := json.MarshalIndent(struct {
		Architecture string         `json:"architecture"`
		Classes      int            `json:"num_classes"`
		Features     int            `json:"num_features"`
		Pool         string         `json:"global_pool"`
		Pretrained   map[string]any `json:"pretrained_cfg"`
	}{arch, 0, e.Net.FeatureDim, "avg", map[string]any{
		"input_size": []int{e.Net.Channels, p.Size, p.Size}, "fixed_input_size": false, "interpolation": "bilinear", "crop_pct": cropShare(p), "crop_mode": "center",
		"mean": plain(p.Mean), "std": plain(p.Std), "num_classes": 0, "pool_size": []int{poolSize(p.Size), poolSize(p.Size)}, "first_conv": "conv1", "classifier": "fc",
	}}, "", "  ")
	if err != nil {
		return nil, err
	}
	var weights bytes.Buffer
	if err := safetensors.Write(&weights, map[string]string{"format": "pt"}, e.StateDict("", false)); err != nil {
		return nil, err
	}
	card := fmt.Sprintf(`---
library_name: timm
tags:
- image-feature-extraction
- timm
---
# %[1]s, pre-trained without labels

%[2]s

    import timm
    model = timm.create_model("local-dir:PATH/OF/THIS/FOLDER", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    features = model(transform(image).unsqueeze(0))  # [1, %[3]d]
`, arch, about, e.Net.FeatureDim)
	return []NamedFile{{"config.json", append(config, '\n')}, {"model.safetensors", weights.Bytes()}, {"README.md", []byte(card)}}, nil
}

// cropShare is the side of the crop against the shorter side that was resized: a
// short number of which timm, that rounds Size/share down, makes Resize.
func cropShare(p Preprocessing) float64 {
	exact := float64(p.Size) / float64(p.Resize)
	for digits := 1000.; digits < 1e9; digits *= 10 {
		share := math.Floor(digits*exact) / digits
		if int(math.Floor(float64(p.Size)/share)) == p.Resize {
			return share
		}
	}
	return exact
}

// poolSize is the side of the last stage's image.
func poolSize(size int) int { return (size + 31) / 32 }

// plain are numbers as people write them: 0.485, not what a float32 of it is.
func plain(list [3]float32) []json.Number {
	var out []json.Number
	for _, x := range list {
		out = append(out, json.Number(fmt.Sprint(x)))
	}
	return out
}
