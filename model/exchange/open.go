package exchange

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mochi/model/exchange/array"
	"mochi/model/exchange/pickle"
	"mochi/model/exchange/safetensors"
	"mochi/model/exchange/torch"
)

// Foreign is another program's file: its tensors by name, and what else a
// checkpoint of MoCo says. Tensors lie in the file, which stays open.
type Foreign struct {
	Form      string            // "PyTorch" or "safetensors"
	Metadata  map[string]string // of safetensors
	Arrays    map[string]*array.Array
	Optimizer *pickle.Dict // nil: none
	Epoch     int

	file io.Closer
}

// Close closes the file.
func (f *Foreign) Close() error { return f.file.Close() }

// ErrForeign is wrapped by every error about the contents of another program's
// file.
var ErrForeign = errors.New("not a file of an encoder")

// Open opens a file, or the folder of a model for timm or transformers. Nothing in
// it is executed.
func Open(path string) (*Foreign, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		inside, err := weightsIn(path)
		if err != nil {
			return nil, err
		}
		path = inside
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := open(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w: %w", path, ErrForeign, err)
	}
	f.file = file
	return f, nil
}

// weightsIn is the file of weights in the folder of a model.
func weightsIn(path string) (string, error) {
	known := []string{"model.safetensors", "pytorch_model.bin"}
	for _, name := range known {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return filepath.Join(path, name), nil
		}
	}
	return "", fmt.Errorf("%s is a folder without %s", path, strings.Join(known, " or "))
}

func open(file *os.File) (*Foreign, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	start := make([]byte, min(info.Size(), 512))
	if _, err := file.ReadAt(start, 0); err != nil {
		return nil, err
	}
	switch {
	case len(start) == 0:
		return nil, errors.New("it is empty")
	case safetensors.Is(start):
		f, err := safetensors.Open(file, info.Size())
		if err != nil {
			return nil, err
		}
		return &Foreign{Form: "safetensors", Metadata: f.Metadata, Arrays: f.Arrays}, nil
	case torch.Is(start):
		root, err := torch.Open(file, info.Size())
		if err != nil {
			return nil, err
		}
		return fromTorch(root)
	}
	// A bare pickle is none of these. What it would run is worth a word.
	var code *pickle.CodeError
	if _, err := pickle.NewReader(io.NewSectionReader(file, 0, info.Size())).Next(); errors.As(err, &code) {
		return nil, err
	} else if err == nil {
		return nil, errors.New("it is a pickle, but not of torch.save")
	}
	return nil, errors.New("it is neither of torch.save nor safetensors")
}

// stateDicts are the keys under which programs save a state_dict.
var stateDicts = []string{"state_dict", "model_state_dict", "model", "net", "network", "backbone", "encoder"}

// fromTorch finds the tensors in what was given to torch.save.
func fromTorch(root any) (*Foreign, error) {
	d, isDict := root.(*pickle.Dict)
	if o, isObject := root.(*pickle.Object); isObject {
		return nil, fmt.Errorf("it holds an object of class %s, which would be code, not a state_dict; in Python: torch.save(torch.load(FILE, weights_only=False).state_dict(), OUT)", o.Class)
	}
	if !isDict {
		return nil, fmt.Errorf("it holds a %s, not a state_dict", kind(root))
	}
	f := &Foreign{Form: "PyTorch"}
	if f.Arrays = tensorsOf(d); len(f.Arrays) == 0 {
		for _, key := range stateDicts {
			inner, _ := d.Get(key)
			if o, isObject := inner.(*pickle.Object); isObject {
				return nil, fmt.Errorf("its %s is an object of class %s, which would be code, not a state_dict", key, o.Class)
			}
			if inner, isDict := inner.(*pickle.Dict); isDict {
				if f.Arrays = tensorsOf(inner); len(f.Arrays) > 0 {
					break
				}
			}
		}
	}
	if len(f.Arrays) == 0 {
		return nil, fmt.Errorf("no tensors in it: its keys are %s", keys(d))
	}
	if optimizer, ok := d.Get("optimizer"); ok {
		f.Optimizer, _ = optimizer.(*pickle.Dict)
	}
	if epoch, ok := d.Get("epoch"); ok {
		if n, isInt := epoch.(int64); isInt && n >= 0 && n < 1<<31 {
			f.Epoch = int(n)
		}
	}
	return f, nil
}

// tensorsOf are the tensors of a dict by their names.
func tensorsOf(d *pickle.Dict) map[string]*array.Array {
	list := map[string]*array.Array{}
	for _, i := range d.Items {
		name, isText := i.Key.(string)
		if t, isTensor := i.Value.(*torch.Tensor); isText && isTensor {
			list[name] = t.Array()
		}
	}
	return list
}

// keys lists a few keys of a dict for people.
func keys(d *pickle.Dict) string {
	var list []string
	for _, i := range d.Items[:min(len(d.Items), 8)] {
		if s, isText := i.Key.(string); isText && len(s) < 80 {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// kind says for people what a value is.
func kind(v any) string {
	switch v.(type) {
	case *torch.Tensor:
		return "tensor"
	case *pickle.List, pickle.Tuple:
		return "list"
	case string:
		return "text"
	case nil:
		return "None"
	}
	return "value of another kind"
}
