package quorum

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What members say to each other beside raft: each connection begins with a hello, a
// line of JSON, and its answer. A connection for raft then is raft's; any other carries
// one question and one answer.
type hello struct {
	Magic string `json:"mochi"` // helloMagic
	Job   string `json:"job"`
	From  string `json:"from"`
	To    string `json:"to"`
	Group string `json:"group,omitempty"`
	Ask   string `json:"ask"` // what for

	Nonce string `json:"nonce,omitempty"` // askAdmit
	File  string `json:"file,omitempty"`  // askLines
	N     int64  `json:"n,omitempty"`     // the first line wanted
}

const helloMagic = "quorum 1"

// What a connection is for.
const (
	askRaft  = "raft"
	askState = "state"
	askAdmit = "admit" // From's folder was emptied, and it holds what the leader holds
	askLines = "lines" // lines of a file, which follow the answer, and an empty one
)

// answer is what a member says of itself.
type answer struct {
	Error string `json:"error,omitempty"`

	Standing string            `json:"standing"`
	Nonce    string            `json:"nonce"`
	Group    string            `json:"group"`
	Founders map[string]string `json:"founders,omitempty"`
	Term     uint64            `json:"term"` // of raft
	Leader   string            `json:"leader"`

	Entries uint64           `json:"entries"` // the last one on its disk
	Applied uint64           `json:"applied"`
	Step    int64            `json:"step"`
	Lines   map[string]int64 `json:"lines"` // that its files hold
	Commits bool             `json:"commits"`

	Checkpoint int64 `json:"checkpoint"` // the newest that it holds
	Arrived    int64 `json:"arrived"`    // of those that it fetches

	Trouble string `json:"trouble,omitempty"`
}

// Limits of what is read before it is known who is at the other end, and how long it
// may take.
const (
	mostHello   = 64 << 10
	helloLimit  = 3 * time.Second
	linesAtOnce = 1 << 20 // bytes of lines that are asked for at once
)

// readLine reads one line of JSON, of at most mostHello bytes.
func readLine(r *bufio.Reader, to any) error {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		if len(text) > mostHello {
			return errors.New("a greeting that does not end: whoever is there does not speak for a coordinator of mochi")
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return noEOF(err)
		}
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("a greeting that is none of a coordinator of mochi: %w", err)
	}
	return nil
}

func writeLine(w io.Writer, what any) error {
	text, err := json.Marshal(what)
	if err == nil {
		_, err = w.Write(append(text, '\n'))
	}
	return err
}

// bufferedConn is a connection of which a part has been read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// dial opens a connection to another member and says hello. The answer is the other's;
// an error it told is one of this function.
func (n *Node) dial(ctx context.Context, to string, h hello) (*bufferedConn, answer, error) {
	m, ok := n.members[to]
	if !ok {
		return nil, answer{}, fmt.Errorf("%s is none of the group's coordinators", to)
	}
	fail := func(err error) (*bufferedConn, answer, error) {
		return nil, answer{}, fmt.Errorf("coordinator %s at %s: %w", to, m.Peer, err)
	}
	h.Magic, h.Job, h.From, h.To = helloMagic, n.o.Job, n.o.Name, to
	h.Group = n.membershipNow().Group
	raw, err := n.o.dial(ctx, m)
	if err != nil {
		return fail(err)
	}
	conn := n.o.wrap(raw, to)
	deadline := time.Now().Add(helloLimit)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &bufferedConn{conn, bufio.NewReader(conn)}
	var a answer
	err = conn.SetDeadline(deadline)
	if err == nil {
		err = writeLine(conn, h)
	}
	if err == nil {
		err = readLine(c.r, &a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return fail(err)
	}
	return c, a, nil
}

// connect opens a connection to another member.
func (o Options) connect(ctx context.Context, m Member) (net.Conn, error) {
	if o.TLS != nil {
		d := tls.Dialer{Config: o.TLS}
		return d.DialContext(ctx, "tcp", m.Peer)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", m.Peer)
}

// ask asks another member one thing.
func (n *Node) ask(ctx context.Context, to string, h hello) (answer, error) {
	c, a, err := n.dial(ctx, to, h)
	if err == nil {
		c.Close()
	}
	return a, err
}

// welcome answers the hello of a connection that was accepted.
func (n *Node) welcome(raw net.Conn) {
	handed := false
	stop := context.AfterFunc(n.ctx, func() { raw.Close() })
	defer func() {
		if stop(); !handed {
			raw.Close()
		}
	}()
	if raw.SetDeadline(time.Now().Add(helloLimit)) != nil {
		return
	}
	r := bufio.NewReader(raw)
	var h hello
	if err := readLine(r, &h); err != nil {
		n.log.Debug("a connection without a greeting", "from", raw.RemoteAddr(), "err", err)
		return
	}
	if why := n.refuses(h); why != "" {
		n.log.Debug("a connection refused", "from", raw.RemoteAddr(), "why", why)
		_ = writeLine(raw, answer{Error: why}) // it is gone in either case
		return
	}
	conn := n.o.wrap(&bufferedConn{raw, r}, h.From)
	a := n.answer()
	switch h.Ask {
	case askAdmit:
		ctx, cancel := context.WithTimeout(n.ctx, helloLimit)
		defer cancel()
		if err := n.admit(ctx, admitEntry{Name: h.From, Nonce: h.Nonce}); err != nil {
			a.Error = err.Error()
		}
	case askLines:
		n.sendLines(conn, h, a)
		return
	case askRaft:
		if a.Standing == blank {
			a.Error = "it has not joined the group yet"
		}
	}
	if err := writeLine(conn, a); err != nil || h.Ask != askRaft || a.Error != "" {
		return
	}
	if raw.SetDeadline(time.Time{}) != nil {
		return
	}
	handed = true
	n.stream.hand(conn)
}

// refuses says why a connection cannot be of this group.
func (n *Node) refuses(h hello) string {
	own := n.membershipNow().Group
	switch {
	case h.Magic != helloMagic:
		return fmt.Sprintf("it speaks %q, this build of mochi %q: use the same build everywhere", h.Magic, helloMagic)
	case h.Job != n.o.Job:
		return fmt.Sprintf("this is a coordinator of job %q, not of %q", n.o.Job, h.Job)
	case h.To != n.o.Name:
		return fmt.Sprintf("this is coordinator %q, not %q: compare --standby's addresses on all machines", n.o.Name, h.To)
	case h.From == n.o.Name:
		return fmt.Sprintf("there is another coordinator %q: each needs a name of its own", h.From)
	case n.members[h.From].Name == "":
		return fmt.Sprintf("this group does not have a coordinator %q: give all of them the same --standby", h.From)
	case h.Group != "" && own != "" && h.Group != own:
		return fmt.Sprintf("it is of group %s, this one of %s: they began apart; empty the folder of the one that is wrong", h.Group, own)
	}
	return ""
}

// sendLines sends lines of a file that another member lacks.
func (n *Node) sendLines(conn net.Conn, h hello, a answer) {
	lines, err := n.o.Follow.Read(h.File, h.N, linesAtOnce)
	if err != nil {
		a.Error = err.Error()
	}
	if writeLine(conn, a) != nil || err != nil {
		return
	}
	if conn.SetDeadline(time.Now().Add(linesLimit)) != nil {
		return
	}
	w := bufio.NewWriter(conn)
	for _, l := range lines {
		if _, err := w.Write(appendBytes(nil, l)); err != nil {
			return
		}
	}
	if w.WriteByte(0) == nil {
		_ = w.Flush() // the other end notices what is missing
	}
}

// linesLimit is how long lines may travel.
const linesLimit = 30 * time.Second

// fetchLines asks another member for lines of a file, from the nth on.
func (n *Node) fetchLines(ctx context.Context, from, file string, first int64) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, linesLimit)
	defer cancel()
	c, _, err := n.dial(ctx, from, hello{Ask: askLines, File: file, N: first})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var lines [][]byte
	for {
		l, err := readBytes(c.r)
		if err != nil {
			return nil, fmt.Errorf("coordinator %s: lines of %s from %d on: %w", from, file, first, err)
		}
		if len(l) == 0 {
			return lines, nil
		}
		lines = append(lines, l)
	}
}

// admit puts it into the log that a member votes again. Only a leader can, whether or
// not it has begun its leadership.
func (n *Node) admit(ctx context.Context, a admitEntry) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = newLeadership(n, n.ctx.Done()).wait(ctx, n.propose(entry{kind: kindAdmit, body: body}))
	return err
}
