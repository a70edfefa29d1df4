package main

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Images that are generated: noise with one of four patterns over it.
const (
	side     = 16
	training = 1024
)

// generate writes a small data set, IDX files, into a folder.
func generate(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(3, 4))
	for _, split := range []struct {
		name string
		n    int
	}{{"train", training}, {"t10k", 64}} {
		images := be32(0x803, uint32(split.n), side, side)
		labels := be32(0x801, uint32(split.n))
		for i := range split.n {
			labels = append(labels, byte(i%4))
			for p := range side * side {
				x, y := p%side, p/side
				level := random.IntN(60)
				if []bool{x < side/2, y < side/2, x == y, (x+y)%4 < 2}[i%4] {
					level += 180
				}
				images = append(images, byte(level))
			}
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(folder, split.name+"-images-idx3-ubyte"), images, 0o644),
			os.WriteFile(filepath.Join(folder, split.name+"-labels-idx1-ubyte"), labels, 0o644),
		); err != nil {
			return err
		}
	}
	return nil
}

func be32(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}
