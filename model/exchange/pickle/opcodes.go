package pickle

// Opcodes, after CPython's Lib/pickle.py.
const (
	opMark           = '('
	opStop           = '.'
	opPop            = '0'
	opPopMark        = '1'
	opDup            = '2'
	opFloat          = 'F'
	opInt            = 'I'
	opBinInt         = 'J'
	opBinInt1        = 'K'
	opLong           = 'L'
	opBinInt2        = 'M'
	opNone           = 'N'
	opPersID         = 'P'
	opBinPersID      = 'Q'
	opReduce         = 'R'
	opString         = 'S'
	opBinString      = 'T'
	opShortBinString = 'U'
	opUnicode        = 'V'
	opBinUnicode     = 'X'
	opAppend         = 'a'
	opBuild          = 'b'
	opGlobal         = 'c'
	opDict           = 'd'
	opEmptyDict      = '}'
	opAppends        = 'e'
	opGet            = 'g'
	opBinGet         = 'h'
	opInst           = 'i'
	opLongBinGet     = 'j'
	opList           = 'l'
	opEmptyList      = ']'
	opObj            = 'o'
	opPut            = 'p'
	opBinPut         = 'q'
	opLongBinPut     = 'r'
	opSetItem        = 's'
	opTuple          = 't'
	opEmptyTuple     = ')'
	opSetItems       = 'u'
	opBinFloat       = 'G'

	// Protocol 2.
	opProto    = 0x80
	opNewObj   = 0x81
	opTuple1   = 0x85
	opTuple2   = 0x86
	opTuple3   = 0x87
	opNewTrue  = 0x88
	opNewFalse = 0x89
	opLong1    = 0x8a
	opLong4    = 0x8b

	// Protocol 3.
	opBinBytes      = 'B'
	opShortBinBytes = 'C'

	// Protocol 4.
	opShortBinUnicode = 0x8c
	opBinUnicode8     = 0x8d
	opBinBytes8       = 0x8e
	opEmptySet        = 0x8f
	opAddItems        = 0x90
	opFrozenSet       = 0x91
	opNewObjEx        = 0x92
	opStackGlobal     = 0x93
	opMemoize         = 0x94
	opFrame           = 0x95

	// Protocol 5.
	opByteArray8 = 0x96
)

// operand is how many bytes the number of an opcode takes that makes a constant.
func operand(op byte) int {
	switch op {
	case opBinInt1, opLong1, opProto:
		return 1
	case opBinInt2:
		return 2
	case opBinInt, opLong4:
		return 4
	case opBinFloat, opFrame:
		return 8
	}
	return 0
}

// length is how many bytes the length takes that stands before a string, 0 for
// other opcodes.
func length(op byte) int {
	switch op {
	case opShortBinString, opShortBinUnicode, opShortBinBytes:
		return 1
	case opBinString, opBinUnicode, opBinBytes:
		return 4
	case opBinUnicode8, opBinBytes8, opByteArray8:
		return 8
	}
	return 0
}

// place is how many bytes a place of the memo takes, 0 for other opcodes.
func place(op byte) int {
	switch op {
	case opBinPut, opBinGet:
		return 1
	case opLongBinPut, opLongBinGet:
		return 4
	}
	return 0
}
