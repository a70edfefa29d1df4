//go:build !gpu

package engines

func cudaBuilder() builder {
	return builder{name: "cuda", gpu: true, missing: "the GPU engine is in builds of its own: make build-gpu"}
}
