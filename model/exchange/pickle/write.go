package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Protocols that Encode writes. 2 is what torch.load(weights_only=True) takes;
// byte strings need 3.
const (
	Protocol2 = 2
	Protocol3 = 3
)

// Encode writes a value: equal values give equal bytes. Of protocol 2 only those
// opcodes are used that PyTorch's weights-only reader knows.
func Encode(v any, protocol int) ([]byte, error) {
	e := encoder{protocol: protocol, out: []byte{opProto, byte(protocol)}}
	e.value(v)
	return append(e.out, opStop), e.err
}

type encoder struct {
	protocol int
	out      []byte
	err      error // the first
}

func (e *encoder) op(op byte, operand ...byte) { e.out = append(append(e.out, op), operand...) }

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case nil:
		e.op(opNone)
	case bool:
		if v {
			e.op(opNewTrue)
		} else {
			e.op(opNewFalse)
		}
	case int:
		e.integer(int64(v))
	case int64:
		e.integer(v)
	case float64:
		e.op(opBinFloat)
		e.out = binary.BigEndian.AppendUint64(e.out, math.Float64bits(v))
	case string:
		e.sized(opBinUnicode, v)
	case []byte:
		if e.protocol < Protocol3 {
			e.fail("bytes need protocol 3")
			return
		}
		e.sized(opBinBytes, string(v))
	case Tuple:
		e.tuple(v)
	case *List:
		e.op(opEmptyList)
		e.items(v.Items, opAppends)
	case *Dict:
		if v.Ordered {
			e.global(OrderedDict)
			e.op(opEmptyTuple)
			e.op(opReduce)
		} else {
			e.op(opEmptyDict)
		}
		e.pairs(v.Items)
	case Global:
		e.global(v)
	case Persistent:
		e.value(v.ID)
		e.op(opBinPersID)
	case *Object:
		e.global(v.Class)
		e.tuple(v.Args)
		e.op(opReduce)
		e.items(v.List, opAppends)
		e.pairs(v.Items)
		if v.State != nil {
			e.value(v.State)
			e.op(opBuild)
		}
	default:
		e.fail("a %T has no form in a pickle", v)
	}
}

func (e *encoder) integer(n int64) {
	switch {
	case n >= 0 && n <= math.MaxUint8:
		e.op(opBinInt1, byte(n))
	case n >= math.MinInt32 && n <= math.MaxInt32:
		e.op(opBinInt)
		e.out = binary.LittleEndian.AppendUint32(e.out, uint32(int32(n)))
	default:
		e.op(opLong1, 8)
		e.out = binary.LittleEndian.AppendUint64(e.out, uint64(n))
	}
}

// sized writes a string or bytes behind a length of 32 bits.
func (e *encoder) sized(op byte, s string) {
	if uint64(len(s)) > math.MaxUint32 {
		e.fail("a string of %d bytes is longer than a pickle can say", len(s))
		return
	}
	e.op(op)
	e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(s)))
	e.out = append(e.out, s...)
}

func (e *encoder) tuple(t Tuple) {
	if len(t) > 3 {
		e.op(opMark)
	}
	for _, v := range t {
		e.value(v)
	}
	e.op([]byte{opEmptyTuple, opTuple1, opTuple2, opTuple3, opTuple}[min(len(t), 4)])
}

func (e *encoder) items(list []any, op byte) {
	if len(list) == 0 {
		return
	}
	e.op(opMark)
	for _, v := range list {
		e.value(v)
	}
	e.op(op)
}

func (e *encoder) pairs(list []Item) {
	flat := make([]any, 0, 2*len(list))
	for _, i := range list {
		flat = append(flat, i.Key, i.Value)
	}
	e.items(flat, opSetItems)
}

func (e *encoder) global(g Global) {
	e.op(opGlobal)
	e.out = append(e.out, g.Module+"\n"+g.Name+"\n"...)
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("pickle: "+format, args...)
	}
}
