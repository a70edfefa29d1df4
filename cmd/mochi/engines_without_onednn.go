//go:build !onednn

package main

func onednnBuilder() builder {
	return builder{name: "onednn", missing: "install libdnnl-dev and a C compiler, then make build"}
}
