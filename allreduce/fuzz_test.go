package allreduce

import (
	"encoding/binary"
	"testing"
	"time"
)

// deaf is a transport whose frames come from the test.
type deaf struct {
	identity Identity
	h        Handlers
}

func (d *deaf) Identity() Identity                   { return d.identity }
func (d *deaf) Start(h Handlers) error               { d.h = h; return nil }
func (d *deaf) Send(Direction, []byte, []byte) error { return nil }
func (d *deaf) Close() error                         { return nil }

// FuzzFrames: a rank that gets any frames from its neighbours neither panics nor
// hangs, and takes only what is whole and of its round. In what is put in, each frame
// is 48 bytes of a header and a byte with the length of its payload; a first byte that
// is odd seals it, and gives it this round and neighbour.
func FuzzFrames(f *testing.F) {
	id := Identity{Job: "j", Round: 3, Rank: 1, World: 3}
	for _, h := range []header{
		{kind: kindData, op: opSum, seq: 0, step: 1, total: 4},
		{kind: kindProbe}, {kind: kindBeat, seq: 9}, {kind: kindBye}, {kind: kindGrant, seq: 1 << 63}, {kind: kindAck}, {kind: kindAbort},
	} {
		b := make([]byte, HeaderLen)
		h.put(b)
		frame := append([]byte{1}, b[:fieldsLen]...)
		frame = append(frame, 5, 1, 0, 2, 0, 1)
		f.Add(append(frame, frame...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		d := &deaf{identity: id}
		cfg := DefaultConfig()
		cfg.Timeout, cfg.ConnectTimeout = time.Hour, time.Hour
		g, err := NewGroup(d, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		for len(stream) > fieldsLen+2 {
			how, head, n := stream[0], stream[1:fieldsLen+1], int(stream[fieldsLen+1])
			stream = stream[fieldsLen+2:]
			payload := append([]byte(nil), stream[:min(n, len(stream))]...)
			stream = stream[len(payload):]
			b := make([]byte, HeaderLen)
			copy(b, head)
			taken := how&1 != 0
			sender := id.Predecessor()
			if how&2 != 0 {
				sender = id.Successor()
			}
			if taken {
				binary.LittleEndian.PutUint16(b, frameMagic)
				binary.LittleEndian.PutUint16(b[4:], uint16(sender))
				binary.LittleEndian.PutUint16(b[6:], uint16(id.World))
				binary.LittleEndian.PutUint64(b[8:], g.fence)
				sealSum(b, checksum(b, payload))
			}
			before := g.stats.damaged.Load() + g.stats.foreign.Load()
			if how&2 == 0 {
				d.h.FromPredecessor(b, payload)
			} else {
				d.h.FromSuccessor(b, payload)
			}
			if refused := g.stats.damaged.Load()+g.stats.foreign.Load() > before; refused == taken && kind(b[2]) != kindAbort { // whose notice may be damaged
				t.Fatalf("frame % x: refused %v", b, refused)
			}
		}
	})
}
