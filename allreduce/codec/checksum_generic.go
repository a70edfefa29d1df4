//go:build !amd64

package codec

func hasFold() bool { return false }

func foldFast(uint32, []byte, []byte) (uint32, int) { panic("codec: no kernel to fold with") }
