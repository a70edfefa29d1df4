package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"mochi/allreduce"
)

// MaxPayload is the largest payload of a frame.
const MaxPayload = 1 << 20

// Buffers are where payloads are read to.
type Buffers interface {
	// Get is a buffer of n bytes; its capacity beyond may be read into as well.
	Get(n int) []byte
}

// Link sends and receives the frames of one link, both ways.
type Link struct {
	conn    net.Conn
	buffers Buffers

	writing sync.Mutex // held during a write; the fields of the next lines are its own
	prefix  [prefixLen]byte
	parts   [2][]byte
	vector  net.Buffers
	spare   []byte

	mu     sync.Mutex // taken after writing
	held   []byte     // small frames, to be written before any other
	failed error      // of a write: the stream has ended in the middle of a frame
	hurry  bool

	more    chan struct{} // capacity 1: something is held
	closing chan struct{}
	closed  sync.Once
	writer  sync.WaitGroup
	gone    chan struct{} // closed when the reader is done
}

// prefixLen is what stands before a payload.
const prefixLen = 4 + allreduce.HeaderLen

// What a link waits for.
const (
	writeTimeout = 15 * time.Second // a neighbour that takes nothing
	hurryTimeout = time.Second      // the same when the round has failed
	lingerFor    = time.Second      // for the neighbour's farewell, when this end is closed
	small        = 512              // bytes: payloads that are copied to wait
	maxHeld      = 1 << 20          // bytes of small frames that wait
)

// NewLink makes a link of a connection that both ends have agreed on. Close it.
func NewLink(conn net.Conn, b Buffers) *Link {
	l := &Link{conn: conn, buffers: b, more: make(chan struct{}, 1), closing: make(chan struct{}), gone: make(chan struct{})}
	l.writer.Go(l.writeHeld)
	return l
}

// Send writes one frame, after those sent before it. A small one waits for nothing: a
// neighbour that takes nothing must not keep whoever watches it. After an error, or Close,
// the link is of no use.
func (l *Link) Send(header, payload []byte) error {
	if len(payload) < small {
		return l.hold(header, payload)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.flush()
	if err == nil {
		binary.LittleEndian.PutUint32(l.prefix[:], uint32(len(payload)))
		copy(l.prefix[4:], header)
		l.parts = [2][]byte{l.prefix[:], payload}
		l.vector = l.parts[:]
		_, err = l.vector.WriteTo(l.conn)
		l.parts[1] = nil
	}
	return l.fail(err)
}

// hold keeps a small frame for whoever writes next.
func (l *Link) hold(header, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if len(l.held) > maxHeld {
		return nil // lost: the neighbour has taken nothing for a long time
	}
	l.held = binary.LittleEndian.AppendUint32(l.held, uint32(len(payload)))
	l.held = append(append(l.held, header...), payload...)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return nil
}

// writeHeld writes small frames when nobody else is writing.
func (l *Link) writeHeld() {
	for {
		select {
		case <-l.more:
		case <-l.closing:
			return
		}
		l.writing.Lock()
		_ = l.fail(l.flush()) // the next Send tells it
		l.writing.Unlock()
	}
}

// flush writes what is held, and prepares another write. It runs under writing.
func (l *Link) flush() error {
	l.mu.Lock()
	err := l.failed
	held := l.held
	if err == nil {
		l.held, l.spare = l.spare[:0], held
		err = l.deadline()
	}
	l.mu.Unlock()
	if err == nil && len(held) > 0 {
		_, err = l.conn.Write(held)
	}
	return err
}

// fail notes an error of a write.
func (l *Link) fail(err error) error {
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
	return l.failed
}

// deadline is under mu.
func (l *Link) deadline() error {
	timeout := writeTimeout
	if l.hurry {
		timeout = hurryTimeout
	}
	return l.conn.SetWriteDeadline(time.Now().Add(timeout))
}

// Hurry makes writes give up soon, also one that is under way: the round has failed.
func (l *Link) Hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurry = true
	_ = l.deadline() // a connection that is closed needs none
}

// Receive reads frames and calls deliver for each, until the connection ends: io.EOF when
// the neighbour closed it between frames. header is valid during the call, payload is the
// receiver's. It is called once.
func (l *Link) Receive(deliver func(header, payload []byte)) error {
	defer close(l.gone)
	var stock [4096]byte // what was read with the payload before it
	begin, end := 0, 0
	header := new([allreduce.HeaderLen]byte)
	for {
		for end-begin < prefixLen {
			end = copy(stock[:], stock[begin:end])
			begin = 0
			n, err := l.conn.Read(stock[end:])
			end += n
			if err != nil && end < prefixLen {
				if end > 0 && errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		size := int(binary.LittleEndian.Uint32(stock[begin:]))
		if size > MaxPayload {
			return fmt.Errorf("a frame of %d bytes, of %d at most: something else is being sent", size, MaxPayload)
		}
		copy(header[:], stock[begin+4:])
		begin += prefixLen
		payload := l.buffers.Get(size)
		n := copy(payload, stock[begin:end])
		begin += n
		if n < size {
			whole := payload[:min(cap(payload), size+len(stock)/2)]
			for n < size {
				k, err := l.conn.Read(whole[n:])
				n += k
				if err != nil && n < size {
					if errors.Is(err, io.EOF) {
						err = io.ErrUnexpectedEOF
					}
					return err
				}
			}
			begin, end = 0, copy(stock[:], whole[size:n])
		}
		deliver(header[:], payload)
	}
}

// Close ends the link after what was sent has left, and waits until the neighbour has ended
// it too, or a second: closing at once would throw away what is still on its way. Receive
// must be running.
func (l *Link) Close() {
	l.closed.Do(func() {
		l.Hurry()
		close(l.closing)
		l.writer.Wait()
		l.writing.Lock()
		err := l.fail(l.flush())
		l.writing.Unlock()
		if half, ok := l.conn.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
			linger := time.NewTimer(lingerFor)
			defer linger.Stop()
			select {
			case <-l.gone:
			case <-linger.C:
			}
		}
		l.conn.Close()
	})
	<-l.gone
}
