package natsring

// pool keeps buffers for the payloads of segments. What is not given back, the garbage
// collector takes.
type pool struct{ free chan []byte }

const (
	poolSize   = 64       // buffers kept: two links with a window each, and some
	poolBuffer = 68 << 10 // bytes: a segment, and what is read with it
)

func newPool() *pool { return &pool{free: make(chan []byte, poolSize)} }

// Get is a buffer of n bytes, with some capacity beyond where it is the pool's; small
// ones are not worth it.
func (p *pool) Get(n int) []byte {
	if n > poolBuffer || n < poolBuffer/16 {
		return make([]byte, n)
	}
	select {
	case b := <-p.free:
		return b[:n]
	default:
		return make([]byte, n, poolBuffer)
	}
}

func (p *pool) put(b []byte) {
	if cap(b) != poolBuffer {
		return
	}
	select {
	case p.free <- b:
	default:
	}
}
