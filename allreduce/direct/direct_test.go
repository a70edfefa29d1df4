package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mochi/allreduce"
	"mochi/allreduce/direct"
)

type plain struct{}

func (plain) Get(n int) []byte { return make([]byte, n, n+100) }

func listen(t *testing.T, wrap direct.Wrap) (*direct.Listener, string) {
	t.Helper()
	l, err := direct.Listen("127.0.0.1:0", wrap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, fmt.Sprintf("127.0.0.1:%d", l.Port())
}

// pair is two ends of a connection that have agreed.
func pair(t *testing.T, wrap direct.Wrap) (a, b net.Conn) {
	t.Helper()
	l, address := listen(t, wrap)
	secret, arrived, forget := l.Expect()
	defer forget()
	a, err := direct.Dial(t.Context(), address, secret, wrap)
	if err != nil {
		t.Fatal(err)
	}
	return a, <-arrived
}

// TestStrangersAreRefused: whoever does not know a secret, or one that was used, gets
// nothing, and keeps nobody out.
func TestStrangersAreRefused(t *testing.T) {
	l, address := listen(t, nil)
	secret, arrived, forget := l.Expect()
	defer forget()
	silent, err := net.Dial("tcp", address) // says nothing, for the whole test
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, hello := range map[string]string{
		"another program": "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("\r\n", 60),
		"a wrong secret":  "mochi ring 1\n" + strings.Repeat("x", 32),
		"no secret":       "mochi ring 1\n" + strings.Repeat("\x00", 32),
		"half a hello":    "mochi ring 1\n",
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(hello))
		c.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%s was answered %q", name, got)
		}
		c.Close()
	}
	conn, err := direct.Dial(t.Context(), address, secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer (<-arrived).Close()
	if again, err := direct.Dial(t.Context(), address, secret, nil); err == nil {
		again.Close()
		t.Error("a secret was good twice")
	}
	late, _, forget := l.Expect()
	forget()
	if again, err := direct.Dial(t.Context(), address, late, nil); err == nil {
		again.Close()
		t.Error("a secret that was forgotten is good")
	}
}

// TestCrowd: more strangers than are listened to do not keep a neighbour out for longer
// than their hello may take.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a time limit")
	}
	l, address := listen(t, nil)
	for range 100 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	secret, arrived, forget := l.Expect()
	defer forget()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for {
		conn, err := direct.Dial(ctx, address, secret, nil)
		if err == nil {
			conn.Close()
			(<-arrived).Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestDialRefusesAnotherListener: one that does not know the secret cannot prove it.
func TestDialRefusesAnotherListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.CopyN(c, c, 45) // an echo
			c.Close()
		}
	}()
	if conn, err := direct.Dial(t.Context(), l.Addr().String(), direct.Secret{1}, nil); err == nil {
		conn.Close()
		t.Error("an echo was believed")
	}
	ctx, stop := context.WithCancelCause(t.Context())
	reason := errors.New("the round is over")
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		c, err := mute.Accept()
		stop(reason)
		if err == nil {
			defer c.Close()
			io.Copy(io.Discard, c)
		}
	}()
	if conn, err := direct.Dial(ctx, mute.Addr().String(), direct.Secret{1}, nil); err == nil {
		conn.Close()
		t.Error("connected to one that says nothing")
	}
}

// counted is a wrapper as TLS would be.
type counted struct{ net.Conn }

func TestWrapIsAroundBothEnds(t *testing.T) {
	var mu sync.Mutex
	n := 0
	a, b := pair(t, func(c net.Conn) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return counted{c}, nil
	})
	defer a.Close()
	defer b.Close()
	if _, ok := a.(counted); !ok || n != 2 {
		t.Errorf("%T, wrapped %d times", a, n)
	}
	l, address := listen(t, func(net.Conn) (net.Conn, error) { return nil, errors.New("no certificate") })
	secret, _, forget := l.Expect()
	defer forget()
	if conn, err := direct.Dial(t.Context(), address, secret, nil); err == nil {
		conn.Close()
		t.Error("a connection that could not be made safe was used")
	}
}

// TestFramesArriveInOrder: large ones written by one goroutine and small ones by others,
// both ways at once; each sender's arrive in its order and whole.
func TestFramesArriveInOrder(t *testing.T) {
	conns := [2]net.Conn{}
	conns[0], conns[1] = pair(t, nil)
	var links [2]*direct.Link
	var readers, writers, arrived sync.WaitGroup
	const frames, senders = 300, 3
	arrived.Add(2 * frames * senders)
	for i, conn := range conns {
		links[i] = direct.NewLink(conn, plain{})
		readers.Go(func() {
			var next [senders]byte
			err := links[i].Receive(func(header, payload []byte) {
				who, number := header[0], header[1]
				rng := rand.New(rand.NewPCG(uint64(who), uint64(number)))
				if want := content(rng, who); number != next[who] || !bytes.Equal(payload, want) {
					t.Errorf("end %d: frame %d of sender %d with %d bytes, want frame %d with %d", i, number, who, len(payload), next[who], len(want))
				}
				next[who]++
				arrived.Done()
			})
			if !errors.Is(err, io.EOF) || next != [senders]byte{frames % 256, frames % 256, frames % 256} {
				t.Errorf("end %d: %v after %v", i, err, next)
			}
		})
	}
	for _, l := range links {
		for who := range byte(senders) {
			writers.Go(func() {
				var header [allreduce.HeaderLen]byte
				for n := range frames {
					header[0], header[1] = who, byte(n)
					if err := l.Send(header[:], content(rand.New(rand.NewPCG(uint64(who), uint64(byte(n)))), who)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Wait()
	arrived.Wait() // Close waits a second at most
	for _, l := range links {
		writers.Go(l.Close)
	}
	writers.Wait()
	readers.Wait()
}

// content is the payload of a frame: one sender's are of any size, the others' small.
func content(rng *rand.Rand, who byte) []byte {
	b := make([]byte, rng.IntN(300))
	if who == 0 {
		b = make([]byte, rng.IntN(100_000))
	}
	for i := range b {
		b[i] = byte(i) ^ byte(len(b))
	}
	return b
}

// TestGarbageEndsTheLink: a stream that is no frames, or ends in the middle of one.
func TestGarbageEndsTheLink(t *testing.T) {
	frame := make([]byte, 4+allreduce.HeaderLen+10)
	frame[0] = 10
	for name, c := range map[string]struct {
		sent   []byte
		frames int
		eof    bool
	}{
		"nothing":           {nil, 0, true},
		"one frame":         {frame, 1, true},
		"half a header":     {frame[:20], 0, false},
		"half a payload":    {frame[:60], 0, false},
		"one and a half":    {append(bytes.Clone(frame), frame[:60]...), 1, false},
		"a length too long": {bytes.Repeat([]byte{0xff}, 100), 0, false},
	} {
		a, b := pair(t, nil)
		go func() {
			a.Write(c.sent)
			a.Close()
		}()
		l := direct.NewLink(b, plain{})
		n := 0
		err := l.Receive(func(header, payload []byte) { n++ })
		if n != c.frames || err == nil || (err == io.EOF) != c.eof {
			t.Errorf("%s: %d frames, then %v", name, n, err)
		}
		l.Close()
	}
}

// TestNeighbourThatTakesNothing: small frames do not wait for it, and a large one no longer
// than a second when the round has failed.
func TestNeighbourThatTakesNothing(t *testing.T) {
	a, b := pair(t, nil)
	defer b.Close() // and reads nothing
	l := direct.NewLink(a, plain{})
	var header [allreduce.HeaderLen]byte
	done := make(chan error, 1)
	blocked := make(chan struct{}, 1)
	go func() {
		for {
			if err := l.Send(header[:], make([]byte, 1<<20)); err != nil {
				done <- err
				return
			}
			select {
			case blocked <- struct{}{}:
			default:
			}
		}
	}()
	<-blocked
	for range 10_000 {
		if err := l.Send(header[:], make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	l.Hurry()
	if err := <-done; err == nil {
		t.Error("the kernel takes without end")
	}
	go l.Receive(func(header, payload []byte) {})
	l.Close()
	if err := l.Send(header[:], nil); err == nil {
		t.Error("a link that failed sends")
	}
}
