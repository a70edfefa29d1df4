package natsring

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// pieces is a connection that brings its stream in pieces of any size.
type pieces struct {
	net.Conn
	stream []byte
	rng    *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.stream[:min(len(p.stream), 1+p.rng.IntN(1<<p.rng.IntN(18)))])
	p.stream = p.stream[n:]
	return n, nil
}

// TestTapTakesItsMessagesOnly: whatever the pieces in which a stream comes, messages of a
// taken subject go to their taker, whole, and all else to nats.go, as it was.
func TestTapTakesItsMessagesOnly(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(7, seed))
		random := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			return b
		}
		var stream, passed, taken bytes.Buffer
		for range 30 {
			size := rng.IntN(1 << rng.IntN(18))
			payload := random(size)
			switch rng.IntN(8) {
			case 0:
				line := "INFO {" + strings.Repeat("x", rng.IntN(6000)) + "}\r\n"
				stream.WriteString(line)
				passed.WriteString(line)
			case 1:
				stream.WriteString("PING\r\n")
				passed.WriteString("PING\r\n")
			case 2: // of another subject, with what looks like one of ours in it
				inside := "x\r\nMSG ring.data 1 head 3\r\nabc\r\n"
				m := fmt.Sprintf("MSG other 7 %d\r\n%s\r\n", len(inside), inside)
				stream.WriteString(m)
				passed.WriteString(m)
			case 3: // with headers, or without a reply: not a frame
				h := fmt.Sprintf("HMSG ring.data 1 head 12 %d\r\nNATS/1.0\r\n\r\n%s\r\n", 12+size, payload)
				stream.WriteString(h + "MSG ring.data 1 2\r\nab\r\n")
				passed.WriteString(h + "MSG ring.data 1 2\r\nab\r\n")
			default:
				fmt.Fprintf(&stream, "MSG ring.data 1 head%d %d\r\n%s\r\n", size, size, payload)
				fmt.Fprintf(&taken, "head%d %s\n", size, payload)
			}
		}
		if seed%2 == 0 { // the last thing may be half a line
			stream.WriteString("PIN")
			passed.WriteString("PIN")
		}
		pool := newPool()
		tap := newTap(&pieces{stream: stream.Bytes(), rng: rng}, pool)
		var got bytes.Buffer
		tap.take("ring.data", func(reply, payload []byte) {
			fmt.Fprintf(&got, "%s %s\n", reply, payload)
			clear(payload) // it is the taker's
			pool.put(payload)
		})
		rest, err := io.ReadAll(io.MultiReader(tap))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(got.Bytes(), taken.Bytes()) {
			t.Fatalf("seed %d: the taker got %d bytes, want %d", seed, got.Len(), taken.Len())
		}
		if !bytes.Equal(rest, passed.Bytes()) {
			t.Fatalf("seed %d: %d bytes were passed on, want %d", seed, len(rest), passed.Len())
		}
	}
}

// TestTapReportsTheEndOfAFrame: a connection that ends in the middle of a payload is an
// error, and half a segment is nobody's.
func TestTapReportsTheEndOfAFrame(t *testing.T) {
	whole := "MSG ring.data 1 head 5000\r\n" + strings.Repeat("x", 5000) + "\r\n"
	for cut := range whole {
		tap := newTap(&pieces{stream: []byte(whole[:cut]), rng: rand.New(rand.NewPCG(1, uint64(cut)))}, newPool())
		tap.take("ring.data", func(reply, payload []byte) { t.Errorf("cut after %d bytes: %d were delivered", cut, len(payload)) })
		for {
			if _, err := tap.Read(make([]byte, 100)); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("cut after %d bytes: %v", cut, err)
			}
		}
	}
}
