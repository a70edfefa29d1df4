// Command exchange-check makes what exports.py and imports.py compare: checkpoints
// with random weights and statistics, as after some training, and a folder of images;
// and for continue.py the views that a run has seen.
package main

import (
	"flag"
	"fmt"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"mochi/coordinator/protocol/config"
	"mochi/replica/checkpoint"
)

func main() {
	dir := flag.String("dir", "", "folder to write")
	archs := flag.String("archs", "resnet18,resnet50,resnet18-cifar,resnet20", "networks")
	seen := flag.String("views", "", "RUN folder whose steps' views to write instead, of -data")
	source := flag.String("data", "", "the data set of that run")
	flag.Parse()
	var err error
	if *seen != "" {
		err = views(*seen, *source, *dir)
	} else {
		err = run(*dir, strings.Split(*archs, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "exchange-check:", err)
		os.Exit(1)
	}
}

func run(dir string, archs []string) error {
	if err := images(filepath.Join(dir, "images"), 7); err != nil {
		return err
	}
	for i, arch := range archs {
		head := "mlp"
		if i%2 == 1 {
			head = "linear"
		}
		s, err := state(arch, head)
		if err != nil {
			return err
		}
		if err := checkpoint.Save(filepath.Join(dir, arch+".safetensors"), s); err != nil {
			return err
		}
	}
	return nil
}

// state is one of random numbers, of the size that training gives them.
func state(arch, head string) (*checkpoint.State, error) {
	c := config.Default()
	c.Arch, c.Head, c.ImageSize, c.Dim, c.Queue, c.Batch, c.BNGroup, c.Recipe, c.Schedule = arch, head, 64, 32, 64, 8, 8, "none", "cosine"
	c.MoCHi, c.LR, c.Epochs = config.MoCHi{}, 0.03, 200
	net, err := c.Network()
	if err != nil {
		return nil, err
	}
	text, err := c.YAML()
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(v []float32, scale float64) []float32 {
		v = append([]float32(nil), v...)
		for i := range v {
			v[i] += float32(scale * rng.NormFloat64())
		}
		return v
	}
	s := &checkpoint.State{Arch: arch, Net: net, Step: 33, Epoch: 2, Cursor: 264, Seed: 1, Config: string(text), K: c.Queue, Dim: c.Dim, QueuePtr: 8, QueueFilled: 264}
	params, buffers := net.Init(1)
	s.QueryParams, s.KeyParams = noise(params, 0.01), noise(params, 0.01)
	s.Momentum = noise(make([]float32, len(params)), 0.01)
	s.QueryBuffers, s.KeyBuffers = noise(buffers, 0.1), noise(buffers, 0.1)
	for _, t := range net.Buffers { // a variance is not negative
		for _, v := range [][]float32{s.QueryBuffers, s.KeyBuffers} {
			for i := t.Offset; i < t.Offset+t.Size; i++ {
				v[i] = max(v[i], -v[i])
			}
		}
	}
	s.Queue = noise(make([]float32, s.K*s.Dim), 0.2)
	s.QueueLabels = make([]int32, s.K)
	return s, nil
}

// images writes pictures of a pattern and of noise, in two classes.
func images(dir string, n int) error {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		img := image.NewNRGBA(image.Rect(0, 0, 64, 64))
		for p := range img.Pix {
			img.Pix[p] = uint8((p*(i+1)/7 + rng.IntN(64)) % 256)
			if p%4 == 3 {
				img.Pix[p] = 255
			}
		}
		folder := filepath.Join(dir, string(rune('a'+i%2)))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(folder, fmt.Sprintf("%d.png", i)))
		if err != nil {
			return err
		}
		if err := png.Encode(f, img); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
