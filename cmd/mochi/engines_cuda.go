//go:build gpu

package main

import "mochi/model/engine/cuda"

func cudaBuilder() builder { return builder{name: cuda.Name, open: cuda.New} }
