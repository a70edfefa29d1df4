//go:build !onednn

package engines

func onednnBuilder() builder {
	return builder{name: "onednn", expected: true, missing: "install libdnnl-dev and a C compiler, then make build"}
}
