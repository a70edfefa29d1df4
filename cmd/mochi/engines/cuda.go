//go:build gpu

package engines

import "mochi/model/engine/cuda"

func cudaBuilder() builder { return builder{name: cuda.Name, gpu: true, open: cuda.New} }
