package allreduce

import "mochi/allreduce/codec"

// beyondCaches is the length of a vector from which on nobody finds the beginning in a
// cache when the end has come, elements.
const beyondCaches = 1 << 20

// floats is a float32 vector in a wire format.
type floats struct {
	data    []float32
	wire    codec.Wire
	scratch []byte // the Group's, one segment: used by the sender, whose turn it is
	check   *Check // of additions, nil: none
}

func (v *floats) size() int { return v.wire.Size() }

func (v *floats) pack(lo, hi int) []byte { return v.wire.Pack(v.scratch, v.data[lo:hi]) }

func (v *floats) fill(sum uint32, payload []byte, lo, hi int) uint32 {
	packed := v.wire.Pack(payload, v.data[lo:hi])
	if &packed[0] == &payload[0] {
		return sumOver(sum, payload)
	}
	return sumCopy(sum, payload, packed) // the vector's own memory
}

func (v *floats) take(r role, lo, hi int, payload []byte, to fate) bool {
	at, x := span{lo, hi}, v.data[lo:hi]
	switch {
	case to != mayPass || r == roleMax || r == roleAddAndKeep && v.wire == codec.FP32: // fp32 goes on as it lies in the vector
		v.combine(r, at, v.wire, payload, to)
		return false
	case r == roleCopy:
		v.combine(r, at, v.wire, payload, stays)
	case r == roleAdd:
		v.check.before(v.data, at, payload)
		v.wire.Pass(payload, x)
		v.check.passed(v.data, at, payload)
	case r == roleAddAndKeep:
		v.check.before(v.data, at, payload)
		v.wire.Keep(x, payload)
		v.check.after(v.data, at, true)
	}
	return true
}

func (v *floats) lentSize() int          { return 4 }
func (v *floats) lend(lo, hi int) []byte { return codec.Bytes(v.data[lo:hi]) }

// takeLent takes float32, whatever the wire: what does not travel need not be rounded
// on the way. Only the owner rounds, so that all ranks adopt what all can be told.
func (v *floats) takeLent(r role, lo, hi int, segment []byte, to fate) {
	v.combine(r, span{lo, hi}, codec.FP32, segment, to)
}

// combine does with what came, in the format as, what its role is.
func (v *floats) combine(r role, at span, as codec.Wire, came []byte, to fate) {
	dst := v.data[at.lo:at.hi]
	switch r {
	case roleCopy:
		if to == stays && len(v.data) >= beyondCaches {
			as.Store(dst, came)
			return
		}
		as.Unpack(dst, came)
	case roleAdd, roleAddAndKeep:
		v.check.before(v.data, at, came)
		as.Add(dst, came)
		if r == roleAddAndKeep {
			v.wire.Round(dst)
		}
		v.check.after(v.data, at, r == roleAddAndKeep)
	case roleMax:
		codec.MaxFP32(dst, came)
	}
}

// raw is a byte vector.
type raw []byte

func (v raw) size() int              { return 1 }
func (v raw) pack(lo, hi int) []byte { return v[lo:hi] }
func (v raw) fill(sum uint32, payload []byte, lo, hi int) uint32 {
	return sumCopy(sum, payload, v[lo:hi])
}
func (v raw) take(_ role, lo, hi int, data []byte, to fate) bool {
	copy(v[lo:hi], data)
	return to == mayPass
}

func (v raw) lentSize() int                                    { return 1 }
func (v raw) lend(lo, hi int) []byte                           { return v[lo:hi] }
func (v raw) takeLent(_ role, lo, hi int, lent []byte, _ fate) { copy(v[lo:hi], lent) }
