package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// constants are numbers, truth and None, and where frames begin.
func (m *machine) constants(op byte) (bool, error) {
	n, err := m.number(operand(op))
	if err != nil {
		return true, err
	}
	switch op {
	case opNone:
		return true, m.push(nil)
	case opNewTrue, opNewFalse:
		return true, m.push(op == opNewTrue)
	case opBinInt1, opBinInt2:
		return true, m.push(int64(n))
	case opBinInt:
		return true, m.push(int64(int32(n)))
	case opBinFloat:
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		return true, m.push(math.Float64frombits(binary.BigEndian.Uint64(b[:])))
	case opLong1, opLong4:
		if n > 1<<10 {
			return true, fmt.Errorf("a number of %d bytes: %w", n, ErrLimit)
		}
		b, err := m.bytes(n)
		if err != nil {
			return true, err
		}
		return true, m.push(signed(b))
	case opProto:
		if n > 5 {
			return true, fmt.Errorf("protocol %d is newer than this program knows (5)", n)
		}
		return true, nil
	case opFrame:
		return true, nil // says only how much could be read at once
	case opInt, opLong, opFloat:
		text, err := m.line()
		if err != nil {
			return true, err
		}
		v, err := textNumber(op, text)
		if err != nil {
			return true, err
		}
		return true, m.push(v)
	}
	return false, nil
}

// textNumber is a number of protocol 0.
func textNumber(op byte, text string) (any, error) {
	if op == opFloat {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", text)
		}
		return f, nil
	}
	if op == opInt && (text == "00" || text == "01") {
		return text == "01", nil
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(text, "L"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no whole number of 64 bits", text)
	}
	return n, nil
}

// strings are those of text and of bytes. Strings of Python 2 are taken as text.
func (m *machine) strings(op byte) (bool, error) {
	size := length(op)
	switch {
	case op == opString || op == opUnicode:
		text, err := m.line()
		if err != nil {
			return true, err
		}
		if op == opString {
			text = strings.Trim(text, `'"`)
		}
		return true, m.push(text)
	case size == 0:
		return false, nil
	}
	n, err := m.number(size)
	if err != nil {
		return true, err
	}
	b, err := m.bytes(n)
	if err != nil {
		return true, err
	}
	switch op {
	case opShortBinBytes, opBinBytes, opBinBytes8, opByteArray8:
		return true, m.push(b)
	}
	return true, m.push(string(b))
}

// structure makes and fills tuples, lists, dicts and sets.
func (m *machine) structure(op byte) (bool, error) {
	switch op {
	case opEmptyTuple:
		return true, m.push(Tuple{})
	case opEmptyList:
		return true, m.push(&List{})
	case opEmptyDict:
		return true, m.push(&Dict{})
	case opEmptySet:
		return true, m.push(&Set{})
	case opTuple1, opTuple2, opTuple3:
		t := make(Tuple, op-opTuple1+1)
		for i := len(t) - 1; i >= 0; i-- {
			var err error
			if t[i], err = m.pop(); err != nil {
				return true, err
			}
		}
		return true, m.push(t)
	case opTuple, opList, opDict, opFrozenSet, opAppends, opSetItems, opAddItems:
		items, err := m.toMark()
		if err != nil {
			return true, err
		}
		return true, m.collect(op, items)
	case opAppend:
		v, err := m.pop()
		if err != nil {
			return true, err
		}
		return true, m.collect(opAppends, []any{v})
	case opSetItem:
		v, err := m.pop()
		if err != nil {
			return true, err
		}
		k, err := m.pop()
		if err != nil {
			return true, err
		}
		return true, m.collect(opSetItems, []any{k, v})
	}
	return false, nil
}

// collect makes a container of items, or adds them to the one on the stack.
func (m *machine) collect(op byte, items []any) error {
	switch op {
	case opTuple:
		return m.push(Tuple(items))
	case opList:
		return m.push(&List{items})
	case opFrozenSet:
		return m.push(&Set{items})
	case opDict:
		d := &Dict{}
		if err := m.push(d); err != nil {
			return err
		}
	}
	to, err := m.top()
	if err != nil {
		return err
	}
	switch to := to.(type) {
	case *List:
		if op == opAppends {
			to.Items = append(to.Items, items...)
			return nil
		}
	case *Set:
		if op == opAddItems {
			to.Items = append(to.Items, items...)
			return nil
		}
	case *Dict:
		if op == opSetItems || op == opDict {
			return addPairs(&to.Items, items)
		}
	case *Object: // a subclass of list, set or dict
		if op == opSetItems {
			return addPairs(&to.Items, items)
		}
		to.List = append(to.List, items...)
		return nil
	}
	return fmt.Errorf("it puts items into a %T", to)
}

func addPairs(to *[]Item, items []any) error {
	if len(items)%2 != 0 {
		return errors.New("a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		*to = append(*to, Item{items[i], items[i+1]})
	}
	return nil
}

// stackAndMemo move values about.
func (m *machine) stackAndMemo(op byte) (bool, error) {
	switch op {
	case opMark:
		return true, m.push(mark{})
	case opPop:
		if len(m.stack) == 0 {
			return true, errEmpty
		}
		m.stack = m.stack[:len(m.stack)-1]
		return true, nil
	case opPopMark:
		_, err := m.toMark()
		return true, err
	case opDup:
		v, err := m.top()
		if err != nil {
			return true, err
		}
		return true, m.push(v)
	}
	at, size := uint64(len(m.memo)), place(op)
	switch {
	case op == opPut || op == opGet:
		text, err := m.line()
		if err != nil {
			return true, err
		}
		if at, err = strconv.ParseUint(text, 10, 32); err != nil {
			return true, fmt.Errorf("%q is no place of the memo", text)
		}
	case size > 0:
		var err error
		if at, err = m.number(size); err != nil {
			return true, err
		}
	case op != opMemoize:
		return false, nil
	}
	if op == opGet || op == opBinGet || op == opLongBinGet {
		v, ok := m.memo[at]
		if !ok {
			return true, fmt.Errorf("nothing was kept at place %d of the memo", at)
		}
		return true, m.push(v)
	}
	v, err := m.top()
	if err != nil {
		return true, err
	}
	m.memo[at] = v
	if m.objects++; m.objects > m.Limits.Objects {
		return true, fmt.Errorf("more than %d values: %w", m.Limits.Objects, ErrLimit)
	}
	return true, nil
}
