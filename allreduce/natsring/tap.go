package natsring

import (
	"bytes"
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"time"
)

// tap is a connection of nats.go's that segments take past it. nats.go opens the
// connection, keeps it and subscribes; but the messages of subjects that are taken go
// from the socket into a buffer of the pool and to their receiver, without a goroutine, a
// copy and four objects each; and one that publishes may write its frames itself, whole,
// between what nats.go writes. What the tap does not understand, such as an encrypted
// stream, it passes on.
type tap struct {
	net.Conn
	pool *pool

	writing sync.Mutex

	mu    sync.Mutex
	taken map[string]func(reply, payload []byte)

	// Of nats.go's reader, the only one.
	buffer     [4096]byte // beginning at a line when pass is 0
	begin, end int        // what is in it
	pass       int        // bytes for nats.go before the next line
	long       bool       // in a line too long for a message of ours
	failed     error      // of a read, after what is in the buffer
	reply      [128]byte  // of the message in hand
}

// longestLine is longer than the first line of any message of ours.
const longestLine = 1024

func newTap(c net.Conn, p *pool) *tap { return &tap{Conn: c, pool: p} }

// take makes messages of a subject go to deliver, which runs in nats.go's reader and must
// not block; payload is its own. A nil deliver ends it.
func (t *tap) take(subject string, deliver func(reply, payload []byte)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if deliver == nil {
		delete(t.taken, subject)
		return
	}
	if t.taken == nil {
		t.taken = map[string]func(reply, payload []byte){}
	}
	t.taken[subject] = deliver
}

func (t *tap) taker(subject []byte) func(reply, payload []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken[string(subject)]
}

// Write writes whole operations of the protocol: nats.go flushes nothing else.
func (t *tap) Write(b []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	return t.Conn.Write(b)
}

// Read reads what is for nats.go.
func (t *tap) Read(p []byte) (int, error) {
	for {
		if t.pass > 0 {
			return t.passOn(p)
		}
		line := t.buffer[t.begin:t.end]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			if err := t.line(line[:i+1]); err != nil {
				return 0, err
			}
			continue
		}
		if t.long || len(line) >= longestLine {
			t.long, t.pass = true, len(line)
			if t.pass > 0 {
				continue
			}
		}
		if t.failed != nil {
			if t.pass = len(line); t.pass > 0 {
				continue
			}
			return 0, t.failed
		}
		t.more()
	}
}

// passOn reads what is for nats.go and next.
func (t *tap) passOn(p []byte) (n int, err error) {
	p = p[:min(len(p), t.pass)]
	if t.begin < t.end {
		n = copy(p, t.buffer[t.begin:t.end])
		t.begin += n
	} else {
		n, err = t.Conn.Read(p)
	}
	t.pass -= n
	return n, err
}

// more reads into the buffer.
func (t *tap) more() {
	t.end = copy(t.buffer[:], t.buffer[t.begin:t.end])
	t.begin = 0
	n, err := t.Conn.Read(t.buffer[t.end:])
	t.end += n
	t.failed = err
}

// line looks at a line that begins in the buffer.
func (t *tap) line(line []byte) error {
	if t.long {
		t.long, t.pass = false, len(line)
		return nil
	}
	m := parseMessage(line)
	if m.size < 0 {
		t.pass = len(line)
		return nil
	}
	deliver := t.taker(m.subject)
	if deliver == nil || !m.plain {
		t.pass = len(line) + m.size + len(crlf)
		return nil
	}
	reply := t.reply[:copy(t.reply[:], m.reply)] // the buffer is about to be used again
	t.begin += len(line)
	payload, err := t.payload(m.size)
	if err != nil {
		return err
	}
	deliver(reply, payload)
	return nil
}

const crlf = "\r\n"

// payload reads the payload of so many bytes that comes next, with the end of its line.
func (t *tap) payload(size int) ([]byte, error) {
	payload := t.pool.Get(size)
	whole := payload[:min(cap(payload), size+len(t.buffer)/2)] // some of what follows it, so that the next line costs no read
	n := copy(whole[:size], t.buffer[t.begin:t.end])
	t.begin += n
	for n < size {
		k, err := t.Conn.Read(whole[n:])
		n += k
		if err != nil && n < size {
			return nil, err
		}
	}
	if n > size { // the buffer is empty
		t.begin, t.end = 0, copy(t.buffer[:], whole[size:n])
	}
	for t.end-t.begin < len(crlf) {
		if t.more(); t.failed != nil && t.end-t.begin < len(crlf) {
			return nil, t.failed
		}
	}
	t.begin += len(crlf)
	return payload[:size], nil
}

// message is what the line before a payload says; size is −1 for other lines.
type message struct {
	subject, reply []byte
	size           int
	plain          bool // with a reply and without headers
}

// parseMessage reads MSG SUBJECT SID [REPLY] SIZE and HMSG SUBJECT SID [REPLY] HEADERS SIZE.
func parseMessage(line []byte) message {
	none := message{size: -1}
	kind, rest, ok := bytes.Cut(bytes.TrimRight(line, crlf), []byte(" "))
	plain := bytes.EqualFold(kind, []byte("MSG"))
	if !ok || !plain && !bytes.EqualFold(kind, []byte("HMSG")) {
		return none
	}
	var words [5][]byte
	n := 0
	for len(rest) > 0 && n < len(words) {
		words[n], rest, _ = bytes.Cut(rest, []byte(" "))
		if len(words[n]) > 0 {
			n++
		}
	}
	if n < 3 {
		return none
	}
	size, err := strconv.Atoi(string(words[n-1]))
	if err != nil || size < 0 {
		return none
	}
	return message{subject: words[0], reply: words[2], size: size, plain: plain && n == 4}
}

// inProcess makes taps of connections to an embedded server.
type inProcess struct {
	server InProcess
	made   func(*tap)
	pool   *pool
}

func (p inProcess) InProcessConn() (net.Conn, error) {
	c, err := p.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	t := newTap(c, p.pool)
	p.made(t)
	return t, nil
}

// dialer makes taps of connections over TCP.
type dialer struct {
	net.Dialer
	tls  *tls.Config // nil: in the clear
	made func(*tap)
	pool *pool
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := d.Dialer.Dial(network, address)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(d.Timeout))
	}
	if err == nil {
		c, err = secured(c, d.tls)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, err
	}
	t := newTap(c, d.pool)
	d.made(t)
	return t, nil
}

// SkipTLSHandshake tells NATS's client that it has been made.
func (d *dialer) SkipTLSHandshake() bool { return true }
