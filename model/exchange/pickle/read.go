package pickle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
)

// Limits bound what a pickle may cost.
type Limits struct {
	Bytes   int64 // read of one pickle
	Objects int   // values made
}

// DefaultLimits are far above the pickle of a checkpoint: its tensors are not in
// it. They keep the worst pickle below some 100 MB of memory.
func DefaultLimits() Limits { return Limits{Bytes: 32 << 20, Objects: 1 << 20} }

// Hook says what stands for a value that is known: of a Persistent, or of an
// Object that a call would give. It returns its argument for those that it does
// not know.
type Hook func(v any) (any, error)

// Reader reads one pickle after the other from a stream.
type Reader struct {
	Limits Limits
	Hook   Hook // optional

	seen func(op byte) // is told each opcode
	in   *bufio.Reader
	read int64 // bytes taken, of all pickles
}

// NewReader reads from r; it takes more from it than pickles need, for its
// buffer. Offset says how much they took.
func NewReader(r io.Reader) *Reader {
	return &Reader{Limits: DefaultLimits(), in: bufio.NewReaderSize(r, 64<<10)}
}

// Offset is how many bytes all pickles read so far took.
func (r *Reader) Offset() int64 { return r.read }

// ErrLimit is wrapped where a pickle would cost more than Limits say.
var ErrLimit = errors.New("it is larger than that of any checkpoint")

// Next reads the next pickle. Errors say at which byte the pickle is at fault.
func (r *Reader) Next() (any, error) {
	m := &machine{Reader: r, start: r.read, memo: map[uint64]any{}}
	v, err := m.run()
	if err != nil {
		return nil, fmt.Errorf("pickle, byte %d: %w", r.read-m.start, err)
	}
	return v, nil
}

// mark is MARK on the stack.
type mark struct{}

// machine is the state of one pickle.
type machine struct {
	*Reader
	start   int64
	stack   []any
	memo    map[uint64]any
	objects int
}

func (m *machine) run() (any, error) {
	for {
		op, err := m.byte()
		if err != nil {
			return nil, err
		}
		if m.seen != nil {
			m.seen(op)
		}
		if op == opStop {
			v, err := m.pop()
			if err == nil && len(m.stack) > 0 {
				err = fmt.Errorf("it ends with %d values left over", len(m.stack))
			}
			return v, err
		}
		if err := m.step(op); err != nil {
			return nil, err
		}
	}
}

// step executes one opcode: each family has a function, which says whether the
// opcode is of it.
func (m *machine) step(op byte) error {
	for _, family := range []func(op byte) (known bool, err error){m.constants, m.strings, m.structure, m.calls, m.stackAndMemo} {
		if known, err := family(op); known {
			return err
		}
	}
	return fmt.Errorf("opcode %#02x is none of a checkpoint", op)
}

// push adds a value that is new.
func (m *machine) push(v any) error {
	if m.objects++; m.objects > m.Limits.Objects {
		return fmt.Errorf("more than %d values: %w", m.Limits.Objects, ErrLimit)
	}
	m.stack = append(m.stack, v)
	return nil
}

var errEmpty = errors.New("it takes a value where there is none")

// pop takes the top, which may be no MARK.
func (m *machine) pop() (any, error) {
	v, err := m.top()
	if err == nil {
		m.stack = m.stack[:len(m.stack)-1]
	}
	return v, err
}

func (m *machine) top() (any, error) {
	if len(m.stack) == 0 {
		return nil, errEmpty
	}
	v := m.stack[len(m.stack)-1]
	if _, isMark := v.(mark); isMark {
		return nil, errEmpty
	}
	return v, nil
}

// toMark takes all above the topmost MARK, and the MARK.
func (m *machine) toMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, isMark := m.stack[i].(mark); isMark {
			items := append([]any(nil), m.stack[i+1:]...)
			m.stack = m.stack[:i]
			// What was copied counts again: marks cannot be had for nothing.
			m.objects += len(items) / 8
			return items, nil
		}
	}
	return nil, errors.New("it goes back to a mark where there is none")
}

func (m *machine) byte() (byte, error) {
	b, err := m.in.ReadByte()
	if err != nil {
		return 0, cutShort(err)
	}
	return b, m.took(1)
}

func (m *machine) took(n int64) error {
	m.read += n
	if m.read-m.start > m.Limits.Bytes {
		return fmt.Errorf("more than %d bytes: %w", m.Limits.Bytes, ErrLimit)
	}
	return nil
}

// bytes reads n bytes. Memory grows with what is there, not with n.
func (m *machine) bytes(n uint64) ([]byte, error) {
	if n > uint64(m.Limits.Bytes) {
		return nil, fmt.Errorf("a string of %d bytes: %w", n, ErrLimit)
	}
	const piece = 64 << 10
	b := make([]byte, 0, min(n, piece))
	for left := n; left > 0; {
		k := min(left, piece)
		at := len(b)
		b = append(b, make([]byte, k)...)
		if _, err := io.ReadFull(m.in, b[at:]); err != nil {
			return nil, cutShort(err)
		}
		if err := m.took(int64(k)); err != nil {
			return nil, err
		}
		left -= k
	}
	return b, nil
}

// line reads up to the end of a line, which is not part of it.
func (m *machine) line() (string, error) {
	var b []byte
	for {
		c, err := m.byte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return string(b), nil
		}
		if len(b) == maxLine {
			return "", fmt.Errorf("a line of more than %d bytes: %w", maxLine, ErrLimit)
		}
		b = append(b, c)
	}
}

const maxLine = 1 << 16

// number reads an unsigned number of n bytes, little-endian.
func (m *machine) number(n int) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(m.in, b[:n]); err != nil {
		return 0, cutShort(err)
	}
	return binary.LittleEndian.Uint64(b[:]), m.took(int64(n))
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is cut short: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// signed reads a two's complement number, little-endian.
func signed(b []byte) any {
	if len(b) == 0 {
		return int64(0)
	}
	if len(b) <= 8 {
		var n uint64
		if b[len(b)-1]&0x80 != 0 {
			n = math.MaxUint64
		}
		for i := len(b) - 1; i >= 0; i-- {
			n = n<<8 | uint64(b[i])
		}
		return int64(n)
	}
	big8 := make([]byte, len(b))
	for i := range b {
		big8[len(b)-1-i] = b[i]
	}
	n := new(big.Int).SetBytes(big8)
	if b[len(b)-1]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// Opcodes lists the opcodes of a pickle, for what must know which a reader needs.
func Opcodes(text []byte) ([]byte, error) {
	var list []byte
	r := NewReader(bytes.NewReader(text))
	r.seen = func(op byte) { list = append(list, op) }
	_, err := r.Next()
	return list, err
}
