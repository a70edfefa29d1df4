//go:build !amd64

package codec

func bestFold() fold { return noFold }

func foldFast(fold, uint32, []byte, []byte) (uint32, int) { panic("codec: no kernel to fold with") }
